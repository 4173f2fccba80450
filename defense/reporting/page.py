"""stub"""
def write_pages(run, numbers, output): pass

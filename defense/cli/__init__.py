"""The commands `defense` and `defense-report`: words, folders of runs, and what a person is told."""

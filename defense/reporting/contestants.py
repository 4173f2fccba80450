"""What a scorer computes, in words: for pages on which several stand side by side."""

from __future__ import annotations

from typing import Any

from defense.config.choices import Direction, Members, Method, Peer

METHODS = {
    Method.adversarial_loss: "-loss_i of the sample attacked at the model",
    Method.confident_learning: "the probability of the label by models that have not seen the sample "
    "({folds} folds), less 1 if the label is called wrong",
    Method.oracle: "what is known of the noise, at no cost",
    Method.self_influence: "-|grad loss_i|^2",
    Method.loss: "-loss_i, one forward pass",
    Method.random: "a random number, at no cost: the control",
}
INVERSE = "grad v . (G + {damping:g} I)^-1 grad loss_i"
DIRECTIONS = {
    Direction.identity: "grad v . grad loss_i, exact",
    Direction.hessian: "grad v . (H + {damping:g} I)^-1 grad loss_i, H the exact Hessian of the mean loss",
    Direction.cg: INVERSE + " by conjugate gradient: {iterations} steps, or a relative residual of {tolerance:g}",
    Direction.lissa: INVERSE + " by {iterations} terms of a Neumann series (LiSSA)",
    Direction.ekfac: INVERSE + ", G in Kronecker factors with corrected eigenvalues",
    Direction.datainf: "the same with a mean of inverses; damping {damping:g} of the mean squared gradient",
}
MEMBERS = {
    Members.single: "",
    Members.dropout: "; mean of {count} dropout sub-networks",
    Members.gaussian: "; mean of {count} noisy copies",
    Members.checkpoints: "; summed over {checkpoints} checkpoints of the training (TracIn)",
}
PEERS = {
    Peer.captum_tracin: "grad v . grad loss_i, exact: TracInCP of captum at one checkpoint, batches of one (its "
    "best)",
    Peer.dattri_tracin: "grad v . grad loss_i, exact: TracInAttributor of dattri at one checkpoint, no "
    "projection, batches of 512 (its best)",
    Peer.dattri_trak: "TRAK, by TRAKAttributor of dattri at one checkpoint: 512 random projections (its default), "
    "batches of 512",
}


def computed(scorer: dict[str, Any] | str, config: dict[str, Any]) -> str:
    """Return what a scorer, by its settings, or a library, by its name, gives sample i; config: of its run."""
    if isinstance(scorer, str):
        return PEERS[Peer(scorer)]
    method = Method(scorer["method"])
    if method is not Method.alignment:
        return METHODS[method].format(**scorer)
    numbers = scorer | {"checkpoints": config["train"]["checkpoints"]}
    words = DIRECTIONS[Direction(scorer["direction"])] + MEMBERS[Members(scorer["members"])]
    return words.format(**numbers) + (", as cosines" if scorer["cosine"] else "")

"""`edgecv verify`: an artifact proves itself on this machine; what is wrong with it is named."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgecv.core.figures import Rung
from edgecv.core.plain import to_plain
from edgecv.errors import BudgetError
from edgecv.runtime.prove import Proof, prove


def verify(options: argparse.Namespace) -> int:
    """Check files, chain, pre-processing, outputs and results.

    Ends with 0 where all that could be checked holds; 3 where everything was checked and a rung does not hold its
    limit, as `edgecv optimize` does for the same ladder; 6 only where the files themselves must not be trusted (an
    `ArtifactError`: missing, changed, of two builds).
    """
    proof = prove(Path(options.artifact), threads=options.threads)
    if options.json:
        print(json.dumps({"holds": proof.holds, **to_plain(proof)}))
    else:
        _show(proof)
    if proof.holds or proof.ladder is None:
        return 0
    print(f"edgecv: the first rung that broke: {proof.ladder.first_broken}", file=sys.stderr)
    for cause in proof.ladder.diagnosis:
        print(f"edgecv: {cause.rung}: {cause.text}", file=sys.stderr)
    return BudgetError.exit_code


def _show(proof: Proof) -> None:
    print(f"{proof.files} files are whole, model {proof.chain_file}")
    for rung in proof.ladder.rungs if proof.ladder else ():
        print(f"{rung.outcome}: {rung.name} against {rung.against}: {_figures(rung)}")
    if proof.skipped:
        print(f"not all was checked: {proof.skipped}")
    for cause in proof.ladder.diagnosis if proof.ladder else ():
        print(f"cause: {cause.rung}: {cause.text}" + (f" ({cause.evidence})" if cause.evidence else ""))


def _figures(rung: Rung) -> str:
    if rung.sqnr_db is None:
        return "equal" if rung.outcome == "pass" else "not equal"
    decibel = "equal" if rung.sqnr_db == float("inf") else f"{rung.sqnr_db:.1f} dB"
    agreement = "" if rung.agreement is None else f", same answer on {rung.agreement:.0%}"
    return f"{decibel}{agreement}, {rung.samples} pictures"

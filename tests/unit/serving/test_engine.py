"""What every engine has in common."""

from __future__ import annotations

import pickle

from shoplens.serving.engine import fault_of


def test_a_fault_names_its_error_in_another_process_too() -> None:
    """Logs of a run on a cluster would not say what happened on a node."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        fault = pickle.loads(pickle.dumps(fault_of(error)))
    (note,) = fault.__notes__
    assert note.endswith("ValueError: broken")
    assert "test_engine.py" in note

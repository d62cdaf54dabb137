"""Kill -9 at random moments of the demo's run: resumed, it is the undisturbed one, and nothing is computed twice."""

import pytest

pytest.importorskip("transformers", reason="transformers is not installed (extra: vlm)")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_runs_resume_to_the_undisturbed_one():
    from benchmarks.kills import kill_runs

    found = [one for one in kill_runs(5, images=4, n=100, seed=1) if one.killed]
    assert len(found) == 5
    assert all(one.equal for one in found)
    assert not any(one.repeated for one in found)

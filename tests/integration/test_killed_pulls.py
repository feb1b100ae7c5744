"""Pulls that are killed lose nothing, leave nothing, and download little twice; see also ``scripts/kill_pulls``."""

import random
from pathlib import Path

from tests.support.killed_pulls import killed_pulls

KILLS = 10


def test_a_killed_pull_is_taken_up_by_the_next(tmp_path: Path) -> None:
    chance = random.Random(KILLS)
    with killed_pulls(tmp_path, layers=4, layer_bytes=1_500_000, chance=chance) as pulls:
        outcomes = [pulls.once(pulls.usual_s * (number + chance.random()) / KILLS) for number in range(KILLS)]
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
    assert any(outcome.killed for outcome in outcomes)
    needed = sum(outcome.needed_bytes for outcome in outcomes)
    assert sum(outcome.sent_bytes for outcome in outcomes) < needed * 1.1

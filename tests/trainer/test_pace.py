"""How fast a training goes on, as its lines of progress say."""

from __future__ import annotations

from selfevo_trainer.process.pace import UpdatePace


def test_a_training_tells_tokens_and_time_from_its_first_update_here() -> None:
    now, tokens = [100.0], [5000]
    pace = UpdatePace(lambda: tokens[0], lambda: now[0])
    assert pace.tokens_per_second is None and pace.seconds_left(9) is None
    now[0], tokens[0] = 160.0, 5100  # the model was loaded
    pace.begins(10)
    assert pace.seconds_left(9) is None
    now[0], tokens[0] = 170.0, 5600
    pace.did(12, 20)
    assert pace.tokens_per_second == 50.0
    assert pace.seconds_left(9) == 40.0  # of 20 updates 8 are left, 2 took 10 s; those before 10 were another attempt's


def test_a_training_that_generates_nothing_has_no_tokens_a_second() -> None:
    now = [0.0]
    pace = UpdatePace(lambda: 0, lambda: now[0])
    pace.begins(0)
    now[0] = 6.0
    pace.did(3, 4)
    assert pace.tokens_per_second is None and pace.truncated_share is None and pace.seconds_left(1) == 2.0

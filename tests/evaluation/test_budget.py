"""The best setting within a budget, and that its success is not flattered by the choice."""

import numpy as np

from specpolicy.evaluation.budget import Setting, best_within, choices


def setting(label, seconds, outcomes):
    return Setting(label, seconds, np.array(outcomes, bool))


def test_only_settings_within_the_budget_are_chosen():
    quick, slow = setting("quick", 0.01, [1, 0, 0, 0]), setting("slow", 0.1, [1, 1, 1, 0])
    found = choices({"ddim": [slow, quick]}, [5, 10, 99, 100])
    assert [(method, budget) for method, budget, _ in found] == [("ddim", budget) for budget in (5, 10, 99, 100)]
    assert found[0][2] is None
    assert [choice.settings for _, _, choice in found[1:]] == [("quick",), ("quick",), ("slow",)]
    assert found[3][2].outcomes.tolist() == [True, True, True, False]


def test_of_equals_the_quickest_is_chosen():
    same = [1, 0, 1, 1]
    choice = best_within([setting("slow", 0.3, same), setting("quick", 0.1, same), setting("middle", 0.2, same)], 1)
    assert choice.settings == ("quick",)


def test_each_half_chooses_for_the_other():
    """One setting solves the even seeds, the other the odd ones: what looks best on a half is nothing on the other."""
    even, odd = setting("even", 0.1, [1, 0] * 10), setting("odd", 0.2, [0, 1] * 10)
    choice = best_within([even, odd], 1)
    assert set(choice.settings) == {"even", "odd"} and not choice.outcomes.any()


def test_many_useless_settings_do_not_look_useful():
    """The best of 50 settings that all solve half of the seeds still solves half of them."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(200):
        settings = [setting(str(number), 0.1, rng.random(40) < 0.5) for number in range(50)]
        rates.append(best_within(settings, 1).outcomes.mean())
        assert max(one.outcomes.mean() for one in settings) > 0.55
    assert abs(np.mean(rates) - 0.5) < 0.02


def test_a_single_episode_is_counted():
    assert best_within([setting("a", 0.1, [1])], 1).outcomes.tolist() == [True]

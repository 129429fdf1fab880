"""No false merge: an answer of any kind with one digit, unit, sign, word or bracket changed is another."""

from __future__ import annotations

import itertools
import re

import pytest

from selfevo_trainer.answers.grading import Grader
from selfevo_trainer.answers.values import compare
from selfevo_trainer.answers.voting import vote_many

# An answer, and what may stand in the place of its marked part: «a|b|c» makes three answers that all differ.
FAMILIES = [
    "3«\\text{ hours }|\\text{ days }»15\\text{ minutes}",
    "3\\text{ h }«15|16|51|1|5|150»\\text{ min}",
    "3\\text{ hours and }«15|51»\\text{ minutes}",
    "3 hours«| 15 minutes| 15 seconds»",
    "5\\text{ «m|km|cm|mm|miles|kg|s|apples|m/s|m/s^2|km/h|N|J|W»}",
    "5 «m/s|m/s^2|km/h|kg m/s|kg/m|N m»",
    "5\\text{ m«|^2|^3»}",
    "5\\text{ km «north|south|east|west|up|down»}",
    "40^\\circ\\text{ «N|S|E|W»}",
    "7:30\\text{ «AM|PM»}",
    "«7:30|7:03|3:70|8:30|17:30»",
    "«\\$|€|£»5",
    "5\\text{ «million|billion|thousand|dozen|percent|»}",
    "17\\text{ R }«2|3|5»",
    "4\\text{ «boys|girls|cats»}, 5\\text{ dogs}",
    "\\text{«at least|at most|more than|less than|exactly|not» }5",
    "x «<|>|=|\\le|\\ge|\\ne» 5",
    "«(|[»1,2«)|]»",
    "(«1,2,3|1,3,2|2,1,3|3,2,1|1,2|1,2,4»)",
    "\\{1,«2|3|2,3»\\}",
    "«(1,2)|\\{1,2\\}|[1,2]»",
    "«1,1,2|1,2,2|1,2|1,2,3»",
    "«x=1, y=2|x=2, y=1|x=1, z=2|x=1, y=3»",
    "«1011|1101|1110»_«2|3|8|{16}»",
    "«x_1|x_2|y_1|x^2|x^3»",
    "«2\\pm 3|2+3|2-3|3\\pm 2»",
    "«-|»1\\frac{«1|2»}{3}",
    "1«\\frac{1}{2}|\\cdot\\frac{1}{2}|\\frac{1}{3}»",
    "«1.6|6.1|1.7»\\times 10^{«19|-19|-18»}",
    "\\frac{1}{«7^{30}|7^{31}|30^7|3^{70}|70^3»}",
    "0.«\\overline{12}|1\\overline{2}|\\overline{21}|12|\\overline{1}|\\overline{2}»",
    "«12|1.2|0.12|-12|12.1|21|120|1,2|1 2»",
    "«10\\%|1\\%|-10\\%|100\\%|20\\%»",
    "«\\sin|\\cos|\\tan|\\ln|\\sinh|\\arcsin» x",
    "«sin|cos|tan»«x|y»",
    "«\\sqrt{2}|\\sqrt{3}|\\sqrt[3]{2}|2|2\\sqrt{2}»",
    "\\mathbf{\\frac{«1|2|4»}{3}}",
    "\\text{«A|B|C|D|E»}",
    "«\\overline{AB}|\\overline{AC}|\\angle ABC|\\angle ACB|\\triangle ABC»",
    "\\begin{pmatrix}«1&2|2&1|1&3»\\\\3&4\\end{pmatrix}",
    "\\begin{pmatrix}1&2\\\\«3&4|4&3»\\end{pmatrix}",
    "[0,1]\\«cup|cap»[2,3]",
    "«5:3|3:5|5:3:1|5:4»",
    "«HTH|HHT|THH|HH»",
    "x \\equiv «2|3» \\pmod{«5|7»}",
    "\\text{«Paris|London|Rome|not Paris|Paris or Rome»}",
    "«x+1|x-1|1-x|2x+1|x+y|x^2+1»",
    "x<1\\text{ «or|and» }x>3",
    "3\\times 4\\text{ «matrix|cm»}",
]


def members(family: str) -> list[str]:
    """All answers of a family."""
    pieces = [part.split("|") if i % 2 else [part] for i, part in enumerate(re.split("[«»]", family))]
    return ["".join(choice) for choice in itertools.product(*pieces)]


# What is equal all the same.
EQUAL = {
    frozenset(pair)
    for pair in [
        ("5\\text{ }", "5\\text{ percent}"),
        ("0.\\overline{1}", "0.1\\overline{1}"),
    ]
}


def test_a_family_is_what_it_says():
    assert members("«a|b»c«1|2»") == ["ac1", "ac2", "bc1", "bc2"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rules_merge_no_two_members_of_a_family(family):
    for a, b in itertools.combinations(members(family), 2):
        if frozenset((a, b)) not in EQUAL:
            assert compare(a, b).equal is not True, (a, b)
            assert compare(b, a).equal is not True, (b, a)


@pytest.mark.slow
def test_no_two_members_of_a_family_are_equal():
    pairs = [
        pair
        for family in FAMILIES
        for pair in itertools.combinations(members(family), 2)
        if frozenset(pair) not in EQUAL
    ]
    with Grader(timeout_s=10, workers=1) as grader:
        rulings = grader.decide_many(pairs)
    assert [(*pair, ruling.by) for pair, ruling in zip(pairs, rulings, strict=True) if ruling.equal] == []


@pytest.mark.parametrize("order", list(itertools.permutations([r"10\%", "10", "0.1"])))
def test_a_percentage_never_joins_its_two_readings(order):
    """It may be either (docs/method.md); the two are never one class."""
    with Grader() as grader:
        assert not grader.equal("10", "0.1")
        [outcome] = vote_many([list(order)], grader)
    assert sorted(count for _, count in outcome.classes) == [1, 2]

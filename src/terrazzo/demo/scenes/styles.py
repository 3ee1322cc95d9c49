"""How rich a drawn street scene is."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """How far one sees, how much there is, and how small things get. Lengths are in metres."""

    focal: Range = (0.72, 1.0)  # in picture widths
    eye: Range = (1.5, 2.5)  # height of the camera
    end: Range = (60, 110)  # distance of the houses that close a street
    open_end: float = 0.45  # share of streets that nothing closes
    reach: float = 120  # distance within which there are cars and trees
    wide: float = 0.2  # share of streets with two lanes in each direction
    parking: float = 0.55  # share of streets with parked cars
    pavement: Range = (2.4, 4.6)  # its width
    brick: bool = False  # whether pavements are of reddish brick instead of grey stone
    crossing: Range = (16, 45)  # distance of a street that crosses
    people: Range = (4, 44)  # distance of people
    crowd: float = 2.0  # their mean number on a quiet pavement; a busy one has three times as many
    tallness: float = 1.0  # how much taller than life they are
    signs: Range = (5, 36)  # distance of signs
    boldness: float = 1.0  # how much larger than life signs and their poles are
    backs: bool = True  # whether signs for the other direction show their grey backs
    lamps: float = 0.55  # share of streets with street lamps
    slim: float = 0.2  # share of streets whose trees are slim
    speck: int = 0  # patches of fewer pixels do not count


STYLES = {
    "rich": Style(),
    # short streets with few, large things: what a small network learns in minutes
    "simple": Style(
        focal=(0.85, 1.05),
        eye=(2.2, 2.9),
        end=(36, 60),
        open_end=0.0,
        reach=24,
        wide=0.0,
        parking=0.3,
        pavement=(3.4, 5.6),
        brick=True,
        crossing=(12, 16),
        people=(4.5, 10),
        crowd=3.5,
        tallness=1.25,
        signs=(6, 12),
        boldness=1.9,
        backs=False,
        lamps=0.0,
        slim=0.0,
        speck=24,
    ),
}

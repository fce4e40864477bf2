"""Which emoji become pictures of a training set: names, kinds and keywords, from the npm package emojibase-data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tools.drawings.icons import read_json

PACKAGE = "emojibase-data"
NO_THINGS = ("component", "symbols", "flags", "people-body")  # groups
MOST_WORDS = 3  # of a keyword
COLOUR_WORDS = frozenset(
    {"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "gray"}
)


@dataclass(frozen=True)
class Concept:
    """What is drawn. ``kind`` is the word for all of its subgroup; "" is not among the trained ones."""

    code: str
    name: str
    kind: str
    keywords: tuple[str, ...]
    reads_one_way: bool = False  # a mirrored picture of it would be wrong

    @property
    def file_name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


class Subgroup(NamedTuple):
    """The word for all of it, and the labels of what does not draw well at 128 px or is too much like the rest."""

    kind: str
    left_out: str = ""


SUBGROUPS: Mapping[str, Subgroup] = {
    "face-smiling": Subgroup(
        "face", "rolling on the floor laughing, grinning face with big eyes, slightly smiling face"
    ),
    "face-affection": Subgroup("face", "kissing face, smiling face, kissing face with smiling eyes"),
    "face-tongue": Subgroup("face", "squinting face with tongue"),
    "face-glasses": Subgroup("face"),
    "face-hat": Subgroup("face", "disguised face"),
    "face-negative": Subgroup("face", "face with symbols on mouth, skull and crossbones, enraged face"),
    "face-unwell": Subgroup("face", "face vomiting, woozy face, face with head-bandage, sneezing face"),
    "face-costume": Subgroup("creature", "pile of poo, ogre, goblin"),
    "cat-face": Subgroup("face", "grinning cat with smiling eyes, kissing cat, cat with wry smile"),
    "monkey-face": Subgroup("face"),
    "heart": Subgroup("heart", "love letter, heart exclamation, heart decoration, mending heart, revolving hearts"),
    "animal-mammal": Subgroup("animal", "guide dog, service dog, water buffalo, two-hump camel, pig nose, paw prints"),
    "animal-bird": Subgroup("bird", "wing, front-facing baby chick, dodo, phoenix"),
    "animal-amphibian": Subgroup("animal"),
    "animal-reptile": Subgroup("animal"),
    "animal-marine": Subgroup("sea animal", "spouting whale"),
    "animal-bug": Subgroup("insect", "microbe, cockroach, mosquito, cricket"),
    "plant-flower": Subgroup("flower", "rosette, wilted flower, white flower"),
    "plant-other": Subgroup("plant", "leaf fluttering in wind, empty nest, sheaf of rice, fallen leaf"),
    "food-fruit": Subgroup("fruit"),
    "food-vegetable": Subgroup("vegetable", "brown mushroom, beans"),
    "food-prepared": Subgroup("food", "stuffed flatbread, tamale, falafel, flatbread, cut of meat, burrito, salt"),
    "food-asian": Subgroup(
        "food", "rice cracker, oden, fish cake with swirl, moon cake, curry rice, roasted sweet potato"
    ),
    "food-sweet": Subgroup("sweet", "custard, shaved ice"),
    "drink": Subgroup("drink", "sake, pouring liquid, mate, beverage box, clinking glasses, tumbler glass"),
    "place-geographic": Subgroup("landscape", "national park, mount fuji, mountain"),
    "transport-ground": Subgroup(
        "vehicle",
        (
            "railway car, high-speed train, light rail, station, tram, monorail, mountain railway, tram car, "
            "trolleybus, minibus, oncoming bus, oncoming taxi, oncoming automobile, sport utility vehicle, bus "
            "stop, motorway, railway track, oil drum, police car light, horizontal traffic light, construction, "
            "auto rickshaw, manual wheelchair, motorized wheelchair, metro, wheel, stop sign, oncoming police car"
        ),
    ),
    "transport-water": Subgroup("ship", "ring buoy, ferry, motor boat, passenger ship"),
    "transport-air": Subgroup(
        "vehicle",
        (
            "airplane departure, airplane arrival, seat, suspension railway, mountain cableway, aerial tramway, "
            "small airplane"
        ),
    ),
    "event": Subgroup(
        "thing",
        (
            "sparkler, tanabata tree, pine decoration, Japanese dolls, moon viewing ceremony, red envelope, "
            "reminder ribbon, admission tickets, ticket, fireworks, confetti ball, carp streamer, sparkles"
        ),
    ),
    "musical-instrument": Subgroup("instrument", "long drum, flute, maracas"),
}
# Of the subgroups that are too mixed, what draws well.
SINGLE: Mapping[str, str] = {
    "building": "house, house with garden, castle, hut, factory, church, tent",
    "face": (
        "sleeping face, thinking face, crying face, loudly crying face, frowning face, face screaming in "
        "fear, zipper-mouth face, flushed face, astonished face"
    ),
    "weather": (
        "sun, crescent moon, star, cloud, rainbow, fire, snowflake, snowman, umbrella, droplet, ringed "
        "planet, sun with face, full moon face, high voltage"
    ),
    "sport": "soccer ball, baseball, basketball, volleyball, american football, tennis",
    "toy": "boxing glove, kite, teddy bear, trophy, crystal ball, yo-yo, bowling",
    "clothes": (
        "crown, top hat, glasses, sunglasses, t-shirt, jeans, dress, socks, scarf, running shoe, high-heeled "
        "shoe, backpack, handbag, gloves, ring, necktie, woman's hat, graduation cap, billed cap, coat, "
        "hiking boot, purse, shorts"
    ),
    "thing": (
        "bell, microphone, headphone, radio, camera, television, light bulb, candle, telephone, laptop, alarm "
        "clock, watch, magnet, hammer, axe, shield, key, hourglass done, bomb, boomerang, gear, scissors, "
        "pencil, paintbrush, crayon, open book, green book, blue book, orange book, envelope, package, gem "
        "stone, locked, flashlight, red paper lantern, bucket, basket, broom, chair, door, artist palette, "
        "yarn, puzzle piece, game die, spoon, kitchen knife, amphora, money bag, magnifying glass tilted "
        "left, microscope, telescope, toothbrush"
    ),
}
# What people say, where it is not the label.
NAMES: Mapping[str, str] = {
    "automobile": "car",
    "blossom": "daisy",
    "deciduous tree": "tree",
    "delivery truck": "truck",
    "ear of corn": "corn",
    "evergreen tree": "fir tree",
    "gem stone": "diamond",
    "high voltage": "lightning",
    "honeybee": "bee",
    "hot beverage": "cup of coffee",
    "hourglass done": "hourglass",
    "jack-o-lantern": "pumpkin",
    "lady beetle": "ladybug",
    "locked": "padlock",
    "locomotive": "steam train",
    "magnifying glass tilted left": "magnifying glass",
    "open book": "book",
    "poultry leg": "chicken leg",
    "red paper lantern": "paper lantern",
    "spiral shell": "shell",
    "steaming bowl": "bowl of soup",
    "tennis": "tennis racket",
    "wrapped gift": "gift",
}
READS_ONE_WAY = (
    "alarm clock, ambulance, artist palette, birthday cake, bus, canned food, fire engine, fuel pump, game "
    "die, guitar, high voltage, laptop, musical keyboard, police car, radio, soft ice cream, t-shirt, taxi, "
    "telephone, television, violin, watch"
)

_KIND_OF = {label: kind for kind, labels in SINGLE.items() for label in labels.split(", ")}
_ONE_WAY = frozenset(READS_ONE_WAY.split(", "))


def read_concepts(modules: Path) -> list[Concept]:
    """Everything that is a thing, in Unicode's order. Raises Refusal."""
    folder = modules / PACKAGE
    groups = read_json(folder / "meta" / "groups.json", PACKAGE)
    listed = read_json(folder / "en" / "data.json", PACKAGE)
    listed = [entry for entry in listed if entry.get("group") is not None and entry.get("subgroup") is not None]
    things = [entry for entry in listed if groups["groups"][str(entry["group"])] not in NO_THINGS]
    return [_concept(entry, groups["subgroups"][str(entry["subgroup"])]) for entry in things]


def _concept(entry: Mapping[str, Any], subgroup: str) -> Concept:
    label = entry["label"].replace("\u2019", "'")
    kind, left_out = SUBGROUPS.get(subgroup, Subgroup(""))
    kind = _KIND_OF.get(label, "" if label in left_out.split(", ") else kind)
    name = NAMES.get(label, label).lower()
    return Concept(entry["hexcode"], name, kind, _keywords(name, entry.get("tags", ())), label in _ONE_WAY)


def _keywords(name: str, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Those that add something to the name; colours are named where they are seen."""
    kept = []
    for tag in tags:
        words = tag.lower().split()
        known = set(words) <= set(name.split()) or not COLOUR_WORDS.isdisjoint(words)
        if words and not known and len(words) <= MOST_WORDS and "".join(words).isalpha():
            kept.append(" ".join(words))
    return tuple(dict.fromkeys(kept))

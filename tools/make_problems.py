#!/usr/bin/env python3
"""Generate synthetic grade-school word problems in GSM8K's JSONL format.

Each line is {"question": ..., "answer": ...}; the answer is a worked solution
with <<expression=value>> calculator annotations that ends in "#### value".
Every value is a non-negative integer, and every step is exact arithmetic.

    make_problems.py --count 1319 --seed 7 > synthetic-test.jsonl

The bundled model was trained on seeds 1 and 1000 to 1012: use others to test it.
"""
import argparse
import json
import random

NAMES = """Ava Ben Carla Dev Elena Felix Grace Hugo Iris Jonas Kira Liam Mona Nadia Omar Priya
Quinn Rosa Sam Tara Uma Victor Wendy Xavier Yara Zoe Alan Bella Chris Dana Ethan Fiona George
Hannah Ivan Julia Kevin Laura Marcus Nora Oscar Paula Ravi Sofia Tom Vera Will Mei Kofi Lena""".split()
ITEMS = """apples marbles stickers books pencils cookies shells stamps cards coins beads buttons
oranges balloons crayons flowers rocks toys candies muffins pens magnets ribbons seeds plums""".split()
GOODS = """notebook sandwich ticket shirt lamp mug puzzle kite plant basket hat scarf clock
poster candle ball cake chair blanket bottle""".split()
CONTAINERS = "boxes bags shelves baskets jars trays drawers crates".split()
PLACES = "farm school library bakery garden market museum theater zoo workshop".split()


class Story:
    """Collects the sentences of a question and the steps of its solution."""

    def __init__(self, rng):
        self.rng = rng
        self.question = []
        self.steps = []

    def say(self, text):
        self.question.append(text)

    def step(self, expression, value, text):
        """Record one solution step; `text` has {c} where the calculation goes."""
        assert value >= 0 and value == int(value), (expression, value)
        value = int(value)
        self.steps.append(text.format(c=f"{expression} = <<{expression}={value}>>{value}"))
        return value

    def record(self, ask, value):
        return {"question": " ".join(self.question + [ask]),
                "answer": "\n".join(self.steps) + f"\n#### {int(value)}"}


def running_total(rng):
    """One person's count goes through two to five changes."""
    s = Story(rng)
    who, other = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    count = rng.randint(5, 90)
    s.say(rng.choice([f"{who} has {count} {item}.", f"{who} starts with {count} {item}.",
                      f"There are {count} {item} in {who}'s collection."]))
    for _ in range(rng.randint(2, 5)):
        kind = rng.choice(["gain", "lose", "double", "give_fraction", "packs"])
        if kind == "gain":
            n = rng.randint(2, 60)
            s.say(rng.choice([f"{other} gives {who} {n} more {item}.", f"Then {who} finds {n} more {item}.",
                              f"{who} buys {n} {item} at the market."]))
            count = s.step(f"{count}+{n}", count + n, f"After that {who} has {{c}} {item}.")
        elif kind == "lose" and count > 4:
            n = rng.randint(1, count - 2)
            s.say(rng.choice([f"{who} loses {n} {item}.", f"{who} gives {n} {item} to {other}.",
                              f"Then {n} of the {item} are sold."]))
            count = s.step(f"{count}-{n}", count - n, f"That leaves {{c}} {item}.")
        elif kind == "double" and count <= 120:
            k = rng.choice([2, 2, 3])
            s.say(f"The next day the number of {item} {'doubles' if k == 2 else 'triples'}.")
            count = s.step(f"{count}*{k}", count * k, f"The number grows to {{c}} {item}.")
        elif kind == "give_fraction":
            k = rng.choice([2, 3, 4, 5])
            if count % k:
                continue
            word = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}[k]
            s.say(f"{who} gives {word} of the {item} to {other}.")
            gift = s.step(f"{count}/{k}", count // k, f"{who} gives away {{c}} {item}.")
            count = s.step(f"{count}-{gift}", count - gift, f"So {who} keeps {{c}} {item}.")
        elif kind == "packs":
            packs, size = rng.randint(2, 9), rng.randint(2, 12)
            s.say(f"{who} opens {packs} packs with {size} {item} in each pack.")
            extra = s.step(f"{packs}*{size}", packs * size, f"The packs hold {{c}} {item}.")
            count = s.step(f"{count}+{extra}", count + extra, f"Now {who} has {{c}} {item}.")
    if not s.steps:
        return running_total(rng)
    return s.record(f"How many {item} does {who} have now?", count)


def shopping(rng):
    """Quantities times prices, summed, with a discount or change from a note."""
    s = Story(rng)
    who = rng.choice(NAMES)
    goods = rng.sample(GOODS, rng.randint(2, 3))
    total, parts = 0, []
    for g in goods:
        n, price = rng.randint(2, 12), rng.randint(2, 25)
        s.say(f"{who} buys {n} {g}s for ${price} each.")
        cost = s.step(f"{n}*{price}", n * price, f"The {g}s cost {{c}} dollars.")
        parts.append(cost)
    total = parts[0]
    for p in parts[1:]:
        total = s.step(f"{total}+{p}", total + p, "Together that is {c} dollars.")
    end = rng.choice(["total", "change", "coupon", "percent"])
    if end == "change":
        paid = (total // 50 + rng.randint(1, 3)) * 50
        s.say(f"{who} pays with ${paid}.")
        change = s.step(f"{paid}-{total}", paid - total, "The change is {c} dollars.")
        return s.record(f"How much change in dollars does {who} get?", change)
    if end == "coupon":
        off = rng.randint(1, min(30, total - 1))
        s.say(f"A coupon takes ${off} off the bill.")
        final = s.step(f"{total}-{off}", total - off, "With the coupon it is {c} dollars.")
        return s.record(f"How many dollars does {who} pay?", final)
    if end == "percent":
        for pct in rng.sample([10, 20, 25, 50], 4):
            if total * pct % 100 == 0:
                s.say(f"The store takes {pct}% off the whole purchase.")
                off = s.step(f"{total}*{pct}/100", total * pct // 100, "The discount is {c} dollars.")
                final = s.step(f"{total}-{off}", total - off, f"So {who} pays {{c}} dollars.")
                return s.record(f"How many dollars does {who} pay?", final)
    return s.record(f"How many dollars does {who} spend in all?", total)


def comparison(rng):
    """A chain of 'times as many' and 'more than', then a sum or difference."""
    s = Story(rng)
    people = rng.sample(NAMES, rng.randint(3, 4))
    item = rng.choice(ITEMS)
    values = [rng.randint(3, 40)]
    s.say(f"{people[0]} has {values[0]} {item}.")
    for i in range(1, len(people)):
        prev, v = people[i - 1], values[-1]
        kind = rng.choice(["times", "more", "fewer"])
        if kind == "times" and v <= 60:
            k = rng.choice([2, 3, 4])
            word = {2: "twice", 3: "three times", 4: "four times"}[k]
            s.say(f"{people[i]} has {word} as many {item} as {prev}.")
            v = s.step(f"{values[-1]}*{k}", values[-1] * k, f"{people[i]} has {{c}} {item}.")
        elif kind == "fewer" and v > 3:
            n = rng.randint(1, v - 1)
            s.say(f"{people[i]} has {n} fewer {item} than {prev}.")
            v = s.step(f"{values[-1]}-{n}", values[-1] - n, f"{people[i]} has {{c}} {item}.")
        else:
            n = rng.randint(2, 40)
            s.say(f"{people[i]} has {n} more {item} than {prev}.")
            v = s.step(f"{values[-1]}+{n}", values[-1] + n, f"{people[i]} has {{c}} {item}.")
        values.append(v)
    if rng.random() < 0.6:
        total = values[0]
        for v in values[1:]:
            total = s.step(f"{total}+{v}", total + v, "Adding up gives {c}.")
        return s.record(f"How many {item} do they have altogether?", total)
    hi, lo = (0, len(values) - 1) if values[0] >= values[-1] else (len(values) - 1, 0)
    diff = s.step(f"{values[hi]}-{values[lo]}", values[hi] - values[lo], "The difference is {c}.")
    return s.record(f"How many more {item} does {people[hi]} have than {people[lo]}?", diff)


def wages(rng):
    """Hours, days and an hourly rate, with overtime or expenses."""
    s = Story(rng)
    who, place = rng.choice(NAMES), rng.choice(PLACES)
    hours, days, rate = rng.randint(2, 9), rng.randint(2, 6), rng.randint(8, 30)
    s.say(f"{who} works at a {place} {hours} hours a day for {days} days a week and earns ${rate} an hour.")
    week_hours = s.step(f"{hours}*{days}", hours * days, f"{who} works {{c}} hours a week.")
    pay = s.step(f"{week_hours}*{rate}", week_hours * rate, "A week pays {c} dollars.")
    end = rng.choice(["week", "weeks", "expense", "save"])
    if end == "weeks":
        weeks = rng.randint(2, 8)
        total = s.step(f"{pay}*{weeks}", pay * weeks, f"In {weeks} weeks that is {{c}} dollars.")
        return s.record(f"How many dollars does {who} earn in {weeks} weeks?", total)
    if end == "expense":
        cost = rng.randint(5, max(6, pay // 2))
        s.say(f"Every week {who} spends ${cost} on the bus and food.")
        left = s.step(f"{pay}-{cost}", pay - cost, f"{who} keeps {{c}} dollars.")
        return s.record("How many dollars are left at the end of a week?", left)
    if end == "save" and pay % 4 == 0:
        s.say(f"{who} saves a quarter of the pay.")
        saved = s.step(f"{pay}/4", pay // 4, f"{who} saves {{c}} dollars a week.")
        return s.record(f"How many dollars does {who} save each week?", saved)
    return s.record(f"How many dollars does {who} earn in a week?", pay)


def sharing(rng):
    """Containers of items are pooled, some removed, and the rest split evenly."""
    s = Story(rng)
    who = rng.choice(NAMES)
    item, box = rng.choice(ITEMS), rng.choice(CONTAINERS)
    groups = rng.randint(2, 9)
    each = rng.randint(2, 15)
    boxes, size = rng.randint(2, 12), rng.randint(3, 20)
    total = boxes * size
    keep = total - groups * each
    if keep < 0:
        return sharing(rng)
    s.say(f"{who} has {boxes} {box} with {size} {item} in each.")
    s.step(f"{boxes}*{size}", total, f"There are {{c}} {item}.")
    if keep:
        s.say(f"{who} sets {keep} {item} aside and shares the rest equally among {groups} friends.")
        rest = s.step(f"{total}-{keep}", total - keep, f"{{c}} {item} are shared.")
    else:
        s.say(f"{who} shares all of them equally among {groups} friends.")
        rest = total
    share = s.step(f"{rest}/{groups}", rest // groups, f"Each friend gets {{c}} {item}.")
    return s.record(f"How many {item} does each friend get?", share)


def journey(rng):
    """Legs of a trip at constant speed, then total distance or remaining distance."""
    s = Story(rng)
    who = rng.choice(NAMES)
    total = 0
    for i in range(rng.randint(2, 3)):
        h, v = rng.randint(2, 8), rng.randint(5, 60)
        s.say(f"{who} {'drives' if i == 0 else 'then rides'} for {h} hours at {v} miles per hour.")
        d = s.step(f"{h}*{v}", h * v, f"Leg {i + 1} is {{c}} miles.")
        total = d if i == 0 else s.step(f"{total}+{d}", total + d, "So far that is {c} miles.")
    if rng.random() < 0.5:
        goal = total + rng.randint(5, 200)
        s.say(f"The whole trip is {goal} miles.")
        left = s.step(f"{goal}-{total}", goal - total, "There are {c} miles to go.")
        return s.record("How many miles are left?", left)
    return s.record(f"How many miles does {who} travel?", total)


def ages(rng):
    """Ages related by sums and multiples, moved forward or back in time."""
    s = Story(rng)
    a, b, c = rng.sample(NAMES, 3)
    x, k, d = rng.randint(3, 20), rng.choice([2, 3, 4]), rng.randint(1, 15)
    s.say(f"{a} is {x} years old. {b} is {k} times as old as {a}. {c} is {d} years older than {b}.")
    y = s.step(f"{x}*{k}", x * k, f"{b} is {{c}} years old.")
    z = s.step(f"{y}+{d}", y + d, f"{c} is {{c}} years old.")
    if rng.random() < 0.5:
        n = rng.randint(2, 20)
        z = s.step(f"{z}+{n}", z + n, f"In {n} years {c} will be {{c}}.")
        return s.record(f"How old will {c} be in {n} years?", z)
    t = s.step(f"{x}+{y}", x + y, "The first two ages add to {c}.")
    t = s.step(f"{t}+{z}", t + z, "With the third it is {c}.")
    return s.record("What is the sum of their ages?", t)


def area(rng):
    """Perimeter, area and a cost per unit."""
    s = Story(rng)
    who = rng.choice(NAMES)
    w, h, p = rng.randint(3, 30), rng.randint(3, 30), rng.randint(2, 9)
    s.say(f"{who} has a rectangular garden that is {w} feet long and {h} feet wide.")
    if rng.random() < 0.5:
        s.say(f"Fencing costs ${p} per foot.")
        half = s.step(f"{w}+{h}", w + h, "Length plus width is {c} feet.")
        per = s.step(f"{half}*2", half * 2, "The perimeter is {c} feet.")
        cost = s.step(f"{per}*{p}", per * p, "The fence costs {c} dollars.")
        return s.record("How many dollars does a fence around the garden cost?", cost)
    s.say(f"Each square foot grows {p} flowers.")
    a = s.step(f"{w}*{h}", w * h, "The area is {c} square feet.")
    n = s.step(f"{a}*{p}", a * p, "That grows {c} flowers.")
    return s.record("How many flowers grow in the garden?", n)


def percentage(rng):
    """A percentage of a group, then the rest and a further split."""
    s = Story(rng)
    place = rng.choice(PLACES)
    pct = rng.choice([10, 20, 25, 30, 40, 50, 60, 75, 80])
    total = rng.randint(1, 40) * 20
    s.say(f"A {place} has {total} visitors. {pct}% of them are children and the rest are adults.")
    kids = s.step(f"{total}*{pct}/100", total * pct // 100, "There are {c} children.")
    adults = s.step(f"{total}-{kids}", total - kids, "There are {c} adults.")
    if rng.random() < 0.5:
        kp, ap = rng.randint(1, 6), rng.randint(4, 12)
        s.say(f"A child pays ${kp} and an adult pays ${ap}.")
        ck = s.step(f"{kids}*{kp}", kids * kp, "The children pay {c} dollars.")
        ca = s.step(f"{adults}*{ap}", adults * ap, "The adults pay {c} dollars.")
        t = s.step(f"{ck}+{ca}", ck + ca, "Together they pay {c} dollars.")
        return s.record("How many dollars do they pay in all?", t)
    return s.record("How many adults are there?", adults)


def average(rng):
    """Readings on several days and their mean."""
    s = Story(rng)
    who, item = rng.choice(NAMES), rng.choice(ITEMS)
    n = rng.randint(3, 5)
    mean = rng.randint(5, 40)
    vals = [max(0, mean + rng.randint(-5, 5)) for _ in range(n - 1)]
    last = mean * n - sum(vals)
    if last < 0:
        return average(rng)
    vals.append(last)
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"][:n]
    s.say(f"{who} collects {item}: " + ", ".join(f"{v} on {d}" for v, d in zip(vals, days)) + ".")
    t = vals[0]
    for v in vals[1:]:
        t = s.step(f"{t}+{v}", t + v, "The sum so far is {c}.")
    m = s.step(f"{t}/{n}", t // n, f"The average is {{c}} {item} a day.")
    return s.record(f"How many {item} does {who} collect a day on average?", m)


FAMILIES = [running_total, running_total, shopping, shopping, comparison, comparison,
            wages, sharing, journey, ages, area, percentage, average]


def problem(rng):
    return rng.choice(FAMILIES)(rng)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--count", type=int, required=True)
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    rng = random.Random(args.seed)
    for _ in range(args.count):
        print(json.dumps(problem(rng)))


if __name__ == "__main__":
    main()

"""Sigma rules over events, decided by a reading of the specification (2.1) of its own: no code and no table of ours.

python3 evaluator.py DIRECTORY: reads DIRECTORY/told/*.json (the rules) and DIRECTORY/events.jsonl, and prints a line
"rule event" for each match. Strings fold the case of ASCII letters only; expressions are PCRE without its Unicode mode.
"""
import base64
import functools
import ipaddress
import itertools
import json
import pathlib
import re
import sys

# Numbers are no text that a keyword is looked for in.
NO_TEXT = {"ProcessId", "NewProcessId", "EventID"}


def fold(text):
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def words(value):
    """A value of a rule or of an event as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def number(value):
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    try:
        text = str(value).strip()
        return int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        return None


def tokens(text):
    """Characters, and wildcards as 1 (any run) and 2 (one character)."""
    found, at = [], 0
    while at < len(text):
        c = text[at]
        if c == "\\" and at + 1 < len(text) and text[at + 1] in "*?\\":
            found.append(text[at + 1])
            at += 1
        else:
            found.append({"*": 1, "?": 2}.get(c, c))
        at += 1
    return found


def dashes(pattern):
    is_word = lambda at: 0 <= at < len(pattern) and isinstance(pattern[at], str) and (pattern[at].isalnum() or pattern[at] == "_")
    begins = lambda at: pattern[at] in ("-", "/") and is_word(at + 1) and not is_word(at - 1)
    places = [at for at in range(len(pattern)) if begins(at)]
    for signs in itertools.product("-/\u2013\u2014\u2015", repeat=len(places)):
        spelled = list(pattern)
        for place, sign in zip(places, signs):
            spelled[place] = sign
        yield spelled


def at_offsets(data):
    for shift in range(3):
        whole = base64.b64encode(b" " * shift + data).decode()
        end = {0: None, 1: -3, 2: -2}[(len(data) + shift) % 3]
        yield whole[(0, 2, 3)[shift]:end]


@functools.lru_cache(None)
def compiled(pattern, cased):
    signs = {1: ".*", 2: "."}
    text = "".join(signs.get(token) or re.escape(token if cased else fold(token)) for token in pattern)
    return re.compile(text + r"\Z", re.S)


@functools.lru_cache(None)
def expression(text, flags):
    return re.compile(text, re.A | flags)


def fits(pattern, cased, text):
    return compiled(tuple(pattern), cased).match(text if cased else fold(text)) is not None


def transformed(value, modifiers):
    """The values that a value stands for, as patterns."""
    patterns = [tokens(words(value))]
    for modifier in modifiers:
        if modifier in ("contains", "startswith", "endswith"):
            before, behind = [1] * (modifier != "startswith"), [1] * (modifier != "endswith")
            patterns = [before + pattern + behind for pattern in patterns]
        elif modifier == "windash":
            patterns = [spelled for pattern in patterns for spelled in dashes(pattern)]
        elif modifier in ("wide", "utf16le", "utf16be", "utf16"):
            order, mark = ("utf-16-be", b"") if modifier == "utf16be" else ("utf-16-le", b"\xff\xfe" if modifier == "utf16" else b"")
            patterns = [mark + "".join(pattern).encode(order) for pattern in patterns]
        elif modifier in ("base64", "base64offset"):
            data = [p if isinstance(p, bytes) else "".join(p).encode() for p in patterns]
            encode = at_offsets if modifier == "base64offset" else lambda d: [base64.b64encode(d).decode()]
            patterns = [list(text) for d in data for text in encode(d)]
    return patterns


def referred(value, modifiers, event, field):
    other, mine = event.get(value), event.get(field)
    if other is None or mine is None:
        return False
    side = words if "cased" in modifiers else lambda v: fold(words(v))
    mine, other = side(mine), side(other)
    asked = {"contains": other in mine, "startswith": mine.startswith(other), "endswith": mine.endswith(other)}
    return next((found for word, found in asked.items() if word in modifiers), mine == other)


def one(field, modifiers, value, event):
    """Whether one value of a field fits."""
    mine = event.get(field)
    if field == "EventID" and mine is None:
        # What does not say what it is is the start of a program, in whichever log.
        return number(value) in (1, 4688)
    if "exists" in modifiers:
        return (mine is not None) == value
    if "fieldref" in modifiers:
        return referred(value, modifiers, event, field)
    if value is None or mine is None:
        return value is mine
    compared = next((m for m in modifiers if m in ("lt", "lte", "gt", "gte")), None)
    if compared or field in NO_TEXT:
        left, right = number(mine), number(value)
        if value == "*":
            return True
        if left is None or right is None:
            return False
        return {"lt": left < right, "lte": left <= right, "gt": left > right, "gte": left >= right}.get(compared, left == right)
    if "re" in modifiers:
        flags = sum({"i": re.I, "m": re.M, "s": re.S}[m] for m in set(modifiers) if m in "ims")
        return expression(words(value), flags).search(words(mine)) is not None
    if "cidr" in modifiers:
        try:
            return ipaddress.ip_address(words(mine)) in ipaddress.ip_network(value, strict=False)
        except ValueError:
            return False
    return any(fits(pattern, "cased" in modifiers, words(mine)) for pattern in transformed(value, modifiers))


def item(key, values, event):
    field, *modifiers = key.split("|")
    values = values if isinstance(values, list) else [values]
    found = (all if "all" in modifiers else any)(one(field, modifiers, value, event) for value in values)
    return not found if "neq" in modifiers else found


def keyword(value, event):
    texts = [words(text) for field, text in event.items() if text is not None and field not in NO_TEXT]
    return any(fits([1] + tokens(words(value)) + [1], False, text) for text in texts)


def identifier(value, event):
    if isinstance(value, dict):
        return all(item(key, values, event) for key, values in value.items())
    if isinstance(value, list):
        return any(identifier(part, event) for part in value)
    return keyword(value, event)


class Condition:
    """not binds tighter than and, and that tighter than or."""

    def __init__(self, text, detection, event):
        self.words = re.findall(r"[()]|[^\s()]+", text)
        self.names = [name for name in detection if name not in ("condition", "timeframe")]
        self.detection, self.event = detection, event

    def holds(self):
        found = self.either()
        assert not self.words, self.words
        return found

    def take(self, word):
        if self.words and self.words[0].lower() == word:
            self.words.pop(0)
            return True
        return False

    def either(self):
        found = [self.both()]
        while self.take("or"):
            found.append(self.both())
        return any(found)

    def both(self):
        found = [self.negated()]
        while self.take("and"):
            found.append(self.negated())
        return all(found)

    def negated(self):
        if self.take("not"):
            return not self.negated()
        if self.take("("):
            found = self.either()
            assert self.take(")")
            return found
        word = self.words.pop(0)
        if not self.take("of"):
            return identifier(self.detection[word], self.event)
        wanted = self.words.pop(0)
        if wanted == "them":
            names = [name for name in self.names if not name.startswith("_")]
        else:
            names = [name for name in self.names if re.fullmatch(re.escape(wanted).replace(r"\*", ".*"), name)]
        assert names
        return {"1": any, "any": any, "all": all}[word](identifier(self.detection[name], self.event) for name in names)


def system(event):
    """Of which system an event is shown to be by its paths."""
    for path in (event.get("Image"), event.get("ParentImage")):
        if isinstance(path, str) and path.startswith("/"):
            return "unix"
        if isinstance(path, str) and re.match(r"\\|[A-Za-z]:[\\/]", path):
            return "windows"
    return "windows" if number(event.get("EventID")) in (4688, 4689) else None


def matches(rule, event):
    source = rule["logsource"]
    wanted = {"process_creation": {1, 4688}, "process_termination": {5, 4689}}[source["category"]]
    if number(event.get("EventID", 1)) not in wanted:
        return False
    other = {"windows": "unix", "linux": "windows"}.get(source.get("product"))
    if other is not None and system(event) == other:
        return False
    conditions = rule["detection"]["condition"]
    conditions = conditions if isinstance(conditions, list) else [conditions]
    return any([Condition(text, rule["detection"], event).holds() for text in conditions])


def main():
    place = pathlib.Path(sys.argv[1])
    rules = [json.loads(path.read_text("utf-8")) for path in sorted((place / "told").glob("*.json"))]
    with open(place / "events.jsonl", encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    for event in events:
        # In the log of Security `ProcessId` is that of the one who starts.
        if "NewProcessId" in event:
            event["ProcessId"] = event.pop("NewProcessId")
    out = "".join(f"{rule['id']} {at}\n" for rule in rules for at, event in enumerate(events) if matches(rule, event))
    sys.stdout.buffer.write(out.encode())


main()

"""Rules and events by chance, the same for the same seed: python3 corpus.py DIRECTORY RULES EVENTS SEED.

DIRECTORY/rules/*.yml are the rules, DIRECTORY/told/*.json the same for the evaluator, where what stands as a plain scalar of YAML is
the text that it is written as.
"""
import base64
import json
import pathlib
import random
import re
import sys

# What YAML takes for a number or a truth and would print as another text; behind the mark it stands in the rule without quotes.
MARK = "\ue000"
PLAIN = ["0777", "010", "007", "1e3", "1_000", "0x1F", "0o17", "1.10", "1.0", "5.", ".5", "+5", "-0", "TRUE", "False", "4688", "1e999"]
PLAIN_NUMBERS = ["4", "16", "0x10", "4_688", "0X4", "+16"]

PIECES = [
    "cmd", "CMD", "power", "shell", ".exe", "K", "k", "\u212a", "s", "\u017f", "\u00e9", "\u00c9", "-enc", " /c ", " -a ", "\\", "\\\\",
    "/", "*", "?", "%", "_", "'", '"', "$", ".", "(", "[", "{", "a", "A", "b", "\n", " ", "10.1.2.3", "\u2013a", "| ", "tmp", "x",
]
PATHS = [r"C:\Windows\System32\cmd.exe", r"C:\Temp\a b\X.EXE", r"\\host\share\run.exe", "/usr/bin/bash", "/tmp/.x", "/bin/Sh", "C:/x/y.exe"]
USERS = ["root", "SYSTEM", "Adm\u00e9lie", "-", "", "admin*"]
ADDRESSES = ["10.1.2.3", "192.168.7.7", "fe80::1", "not one"]
TEXTS = ["CommandLine", "Image", "ParentImage", "User", "CurrentDirectory", "OriginalFileName", "Company", "LogonId", "Product"]
EXPRESSIONS = [
    "cmd", "^a", "a$", "^$", r"\\cmd\.exe$", "[k-s]+", "[^a-z]k", "a.b", r"\w+\s-\w", "(power|cmd)(shell)?", "k{2}", r"\d{1,3}\.\d", "s|k",
    "(?i)shell", "[\\]a]", "x*y?a+", r"\bk\b", "^(cmd|power).*[.]exe$", r"[\w.]+\$", "\u00e9", "{a", "[&~|]", r"\x41|\t", "a(?:b|K)",
]


class Maker:
    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.seen = []

    def often(self, share):
        return self.chance.random() < share

    def text(self):
        return "".join(self.chance.choice(PIECES) for _ in range(self.chance.randrange(0, 5)))

    def command(self):
        """A command line with what the encoding modifiers and windash look for."""
        if self.often(0.2):
            return self.chance.choice(["", "x ", "chmod "]) + self.chance.choice(PLAIN) + self.chance.choice(["", " y"])
        if self.often(0.5):
            signs = [self.chance.choice("-/\u2013\u2014\u2015") for _ in range(3)]
            return "x {}a {}K {}c".format(*signs) if self.often(0.5) else "cmd {}enc {}c".format(*signs)
        hidden = self.chance.choice(["cmd", "whoami", "a b c"]).encode(self.chance.choice(["utf-8", "utf-16-le", "utf-16-be", "utf-16"]))
        before, behind = (b"q" * self.chance.randrange(n) for n in (4, 3))
        return base64.b64encode(hidden if self.often(0.5) else before + hidden + behind).decode()

    def event(self):
        event = {}
        if self.often(0.9):
            event["Image"] = self.chance.choice(PATHS)
        if self.often(0.9):
            event["CommandLine"] = self.chance.choice([self.text(), self.command(), self.command(), event.get("Image", "x") + " " + self.text(), 4688, True])
        for field, share in (("ParentImage", 0.6), ("CurrentDirectory", 0.4)):
            if self.often(share):
                image = event.get("Image", "/x")
                event[field] = self.chance.choice([*PATHS, image, image, image.swapcase(), image[-4:]])
        if self.often(0.6):
            event["User"] = self.chance.choice(USERS)
        if self.often(0.5):
            event["OriginalFileName"] = self.text()
        if self.often(0.4):
            event["Company"] = self.chance.choice(ADDRESSES)
        if self.often(0.5):
            event["LogonId"] = self.chance.choice([999, "999", "0x3e7", "0X3E7", 0])
        if self.often(0.6):
            event["ProcessId"] = self.chance.choice([4, "4", "0x10", 16, 4688, "4688", " 4 "])
        if self.often(0.3):
            event["EventID"] = self.chance.choice([1, "1", 5, "5", 4688, "4688", 4689])
            if event["EventID"] in (4688, "4688") and "ProcessId" in event:
                event["NewProcessId"] = event.pop("ProcessId")
        if self.often(0.2):
            event["Product"] = None
        self.seen.extend(value for value in event.values() if isinstance(value, str) and value)
        return event

    def escaped(self, text):
        """With wildcards that mean themselves, or mean what they are."""
        return "".join("\\" + c if c in "*?" and self.often(0.8) else c for c in text)

    def value(self):
        if self.often(0.2):
            return self.text()
        if self.often(0.1):
            return MARK + self.chance.choice(PLAIN)
        whole = self.chance.choice(self.seen)
        start = self.chance.randrange(len(whole))
        part = whole if self.often(0.3) else whole[start:start + self.chance.randrange(1, 8)]
        part = self.escaped(part)
        if self.often(0.3):
            at = self.chance.randrange(len(part) + 1)
            part = part[:at] + self.chance.choice(["*", "?"]) + part[at + 1:]
        if self.often(0.1):
            part = part.replace("k", "\u212a").replace("s", "\u017f")
        return part.swapcase() if self.often(0.2) else part

    def values(self, one, several=4):
        return [one() for _ in range(self.chance.randrange(1, several))] if self.often(0.4) else one()

    def item(self):
        field = self.chance.choice(TEXTS)
        kind = self.chance.randrange(21)
        place = self.chance.choice(["contains", "startswith", "endswith"])
        if kind < 6:
            key = [field] + ([place] if self.often(0.8) else []) + (["cased"] if self.often(0.2) else [])
            key += (["all"] if self.often(0.15) else []) + (["neq"] if self.often(0.1) else [])
            return "|".join(key), self.values(self.value)
        if kind < 8:
            flags = [flag for flag in "is" if self.often(0.4)]
            return "|".join([field, "re", *flags]), self.values(lambda: self.chance.choice(EXPRESSIONS))
        if kind == 8:
            return f"{field}|exists", self.often(0.5)
        if kind == 9:
            return field, self.values(lambda: self.chance.choice([None, "", "-", 999, True, "*", 4688]))
        if kind == 10:
            key = self.chance.choice(["ProcessId", "ProcessId|neq", "ProcessId|gt", "ProcessId|lte"])
            return key, self.values(lambda: self.chance.choice([4, 16, "0x10", 4688, "4688", MARK + self.chance.choice(PLAIN_NUMBERS)])) if key < "ProcessId|a" else 16
        if kind == 11:
            return "EventID", self.values(lambda: self.chance.choice([1, "1", 5, 3, 4688, "4688", 4689]))
        if kind == 12:
            return "Company|cidr", self.values(lambda: self.chance.choice(["10.0.0.0/8", "192.168.7.0/24", "fe80::/10", "10.1.2.3"]))
        if kind in (13, 16):
            return f"Image|fieldref{self.chance.choice(['', '|endswith', '|contains', '|neq', '|cased'])}", self.chance.choice(["ParentImage", "CurrentDirectory"])
        if kind in (14, 17):
            dashed = self.chance.choice([" -enc", "-a -k", "-a -K /c", " /c", "x /a", "cmd -enc /c", "x -A -k -c"])
            return f"CommandLine|{self.chance.choice(['windash|contains', 'contains|windash', 'windash'])}", dashed
        encoded = self.chance.choice(["base64", "base64offset|contains", "wide|base64offset|contains", "utf16be|base64", "utf16|base64"])
        return f"CommandLine|{encoded}", self.chance.choice(["cmd", "whoami", "a b c"])

    def map(self):
        return dict(self.item() for _ in range(self.chance.choice([1, 1, 2, 2, 3])))

    def identifier(self):
        kind = self.chance.randrange(8)
        if kind < 5:
            return self.map()
        if kind < 7:
            return [self.map() for _ in range(self.chance.randrange(1, 4))]
        return [self.value() or "x" for _ in range(self.chance.randrange(1, 4))]

    def condition(self, names):
        a, b = self.chance.choice(names), self.chance.choice(names)
        return self.chance.choice([
            a, a, f"{a} and not {b}", f"{a} or {b}", f"not {a} or {b} and {a}", "1 of sel*", "all of sel*", "1 of them", "all of them",
            f"({a} or {b}) and not 1 of _f*", f"not (not {a} and {b})", f"{a} and not 1 of sel_*",
        ])

    def rule(self, number):
        names = ["sel", "sel_1", "sel_2", "_filter"]
        detection = {name: self.identifier() for name in names}
        if self.often(0.1):
            detection["sel"] = {**self.map(), "Nowhere": "x"}
        condition = self.condition(names)
        detection["condition"] = [condition, self.condition(names)] if self.often(0.1) else condition
        source = {"category": "process_termination" if self.often(0.05) else "process_creation"}
        if self.often(0.6):
            source["product"] = self.chance.choice(["windows", "linux"])
        return {"title": f"rule {number}", "id": f"00000000-0000-4000-8000-{number:012x}", "logsource": source, "detection": detection}


def main():
    place, rules, events, seed = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5])
    maker = Maker(seed)
    lines = [json.dumps(maker.event(), ensure_ascii=False) + "\n" for _ in range(events)]
    (place / "events.jsonl").write_text("".join(lines), "utf-8", newline="\n")
    (place / "rules").mkdir()
    (place / "told").mkdir()
    for number in range(rules):
        text = json.dumps(maker.rule(number), ensure_ascii=False, indent=0)
        plain = re.sub(f'"{MARK}([^"]*)"', r"\1", text)
        (place / "rules" / f"{number:05}.yml").write_text(plain + "\n", "utf-8", newline="\n")
        (place / "told" / f"{number:05}.json").write_text(text.replace(MARK, "") + "\n", "utf-8", newline="\n")


main()

"""What a command line makes of the ACS controls, as Linux 7.3 parses it, its mistakes included.

drivers/pci/pci.c: pci_setup(), pci_enable_acs(), __pci_config_acs(), pci_dev_str_match();
lib/vsprintf.c and lib/kstrtox.c for what sscanf() takes as a number; lib/cmdline.c for words.
"""

import re

from model import CR, EC, RR, SV, TB, UF

ALL_CONTROLS = 0x7F
SPACE = " \t\n\v\f\r\xa0"
HEX = "0123456789abcdefABCDEF"


def words(line):
    """next_arg(): a command line's parameters and their values, quotes taken off."""
    at = 0
    while at < len(line):
        while at < len(line) and line[at] in SPACE:
            at += 1
        if at == len(line):
            return
        start = at
        in_quote = quoted = line[at] == '"'
        if quoted:
            start += 1
            at += 1
        equals = None
        while at < len(line):
            if line[at] in SPACE and not in_quote:
                break
            if equals is None and line[at] == "=":
                equals = at
            if line[at] == '"':
                in_quote = not in_quote
            at += 1
        word = line[start:at]
        at += 1
        if equals is None:
            name, value = word, None
        else:
            name, value = word[: equals - start], word[equals - start + 1 :]
            if value.startswith('"'):
                value = value[1:]
                if value.endswith('"'):
                    value = value[:-1]
        if quoted and word.endswith('"'):
            if value is None:
                name = name[:-1]
            elif value.endswith('"'):
                value = value[:-1]
        yield name, value


class Parameters:
    """The options of all `pci=` on a command line that have to do with ACS."""

    def __init__(self, line):
        self.disable_acs_redir = None
        self.config_acs = None
        self.no_ats = False
        self.swiotlb_force = False
        for name, value in words(line):
            if name == "--" and value is None:
                break
            if name == "pci" and value is not None:
                self.pci(value)
            if name == "swiotlb" and value is not None:
                self.swiotlb(value)

    def pci(self, value):
        for option in value.split(","):
            if option.startswith("noats"):
                self.no_ats = True
            elif option.startswith("disable_acs_redir="):
                self.disable_acs_redir = option[18:]
            elif option.startswith("config_acs="):
                self.config_acs = option[11:]

    def swiotlb(self, value):
        """setup_io_tlb_npages(): up to two numbers, then a word that may go on."""
        number = r"(?:0[xX][0-9a-fA-F]*|0[0-7]*|[1-9][0-9]*)?,?"
        if re.match(number + number + "force", value):
            self.swiotlb_force = True


class Scanner:
    """One sscanf()."""

    def __init__(self, text):
        self.text = text
        self.at = 0

    def number(self):
        """%x. Returns None where the conversion fails."""
        if self.at >= len(self.text):
            return None
        at = self.at
        while at < len(self.text) and self.text[at] in SPACE:
            at += 1
        if at >= len(self.text) or self.text[at] not in HEX:
            return None
        # _parse_integer_fixup_radix(): digits need not follow.
        if self.text[at] == "0" and self.text[at + 1 : at + 2] in ("x", "X"):
            at += 2
        value = 0
        while at < len(self.text) and self.text[at] in HEX:
            value = value * 16 + int(self.text[at], 16)
            at += 1
        self.at = at
        return min(value, 2**64 - 1)

    def literal(self, character):
        matches = self.text[self.at : self.at + 1] == character
        self.at += 1
        return matches


def numbers(text, separators, bits):
    """The numbers of "%x<separator>%x...": those read, and where reading stopped."""
    scanner = Scanner(text)
    found = []
    for separator in ["", *separators]:
        if separator and not scanner.literal(separator):
            break
        value = scanner.number()
        if value is None:
            break
        found.append(value & (2**bits - 1))
    return found, scanner.at


def exactly(text, separators):
    """The numbers, if they are all there and nothing follows; otherwise None."""
    found, end = numbers(text, separators, 32)
    return found if len(found) == len(separators) + 1 and end >= len(text) else None


def devfn(slot, function):
    return (slot & 0x1F) << 3 | function & 7


INVALID = -1


def matches_path(function, text):
    """pci_dev_str_match_path(): 1, 0 or INVALID, and the rest of the text."""
    end = text.find(";")
    end = len(text) if end < 0 else end
    path, rest = text[:end], text[end:]
    while "/" in path:
        path, _, last = path.rpartition("/")
        pair = exactly(last, ".")
        if pair is None:
            return INVALID, rest
        if function.devfn != devfn(*pair):
            return 0, rest
        function = function.parent
        if function is None:
            return 0, rest
    if (four := exactly(path, "::.")) is not None:
        segment, bus, slot, number = four
    elif (three := exactly(path, ":.")) is not None:
        segment, (bus, slot, number) = 0, three
    else:
        return INVALID, rest
    found = segment == 0 and bus == function.bus and function.devfn == devfn(slot, number)
    return int(found), rest


def matches(function, text):
    """pci_dev_str_match(): 1, 0 or INVALID, and the rest of the text."""
    if not text.startswith("pci:"):
        return matches_path(function, text)
    ids, end = numbers(text[4:], ":::", 16)
    if len(ids) != 4:
        ids, end = numbers(text[4:], ":", 16)
        if len(ids) != 2:
            return INVALID, text
        ids += [0, 0]
    # Every function here has its own ID as subsystem ID, except that ports have none.
    port = bool(function.secondary)
    actual = (
        function.vendor,
        function.device,
        0 if port else function.vendor,
        0 if port else function.device,
    )
    found = all(not wanted or wanted == there for wanted, there in zip(ids, actual))
    return int(found), text[4 + end :]


def configure(function, text, fixed, control):
    """__pci_config_acs() for one function; `fixed` is None for config_acs. Firmware left all off."""
    if text is None:
        return control
    firmware = 0
    found = 0
    mask, flags = fixed or (0, 0)
    while text:
        if fixed is None:
            letters, at, rest = text.partition("@")
            if not at:
                return control
            mask = flags = 0
            for shift, letter in enumerate(reversed(letters)):
                if letter not in "01xX":
                    return control
                if letter in "01":
                    mask |= 1 << shift
                if letter == "1":
                    flags |= 1 << shift
            mask &= 0xFFFF
            flags &= 0xFFFF
            text = rest
        if mask & ~ALL_CONTROLS:
            return control
        found, text = matches(function, text)
        if found or text[:1] not in (";", ","):
            break
        text = text[1:]
    if found != 1:
        return control
    return (firmware & ~mask) | (flags & mask)


def program(machine, parameters):
    """pci_enable_acs() for every function. ACS is asked for where there is an IOMMU."""
    redirects = RR | CR | EC
    for function in machine.functions:
        capability = function.acs_capability
        control = 0
        if capability:
            if machine.iommu != "none":
                control = capability & (SV | RR | CR | UF)
                if parameters.no_ats:
                    control |= capability & TB
            control = configure(
                function, parameters.disable_acs_redir, (redirects, ~redirects & 0xFFFF), control
            )
            control = configure(function, parameters.config_acs, None, control)
        # Controls without their capability are read-only zero.
        function.acs_control = control & capability

"""What a phone is and how it feels: model, system, processor, battery and heat, which all change its times."""

import re
from dataclasses import dataclass

from tflite_export.bench.adb import Adb

_TIMEOUT = 20.0
_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.product.cpu.abilist",
    "ro.product.cpu.abi",
)
# Android's PowerManager.THERMAL_STATUS_*.
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_LOW_BATTERY, _WARM = 20, 40.0


@dataclass(frozen=True)
class Phone:
    """What does not change while it is measured.

    Attributes:
        name: such as "Google Pixel 8, Android 14, Google Tensor G3".
        abis: instruction sets that it runs, the best first.
    """

    name: str
    abis: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What changes; None where the phone does not tell.

    Attributes:
        level: of the battery, percent.
        celsius: of the battery.
        power: where it is charged from, such as "USB"; "" when it is not.
        thermal: 0 (none) to 6 (shutdown), from Android 10 on.
        saver: battery saver is on.
    """

    level: int | None = None
    celsius: float | None = None
    power: str = ""
    thermal: int | None = None
    saver: bool = False

    def __str__(self) -> str:
        parts = [f"battery {self.level} %" if self.level is not None else ""]
        parts += [f"{self.celsius:.1f} C" if self.celsius is not None else ""]
        parts += [f"charging from {self.power}" if self.power else "on battery"] if self.level is not None else []
        parts += [f"thermal status {_THERMAL[self.thermal]}" if self.thermal is not None else ""]
        return ", ".join(filter(None, parts)) or "unknown"


def phone_of(adb: Adb) -> Phone:
    """Asks the phone what it is."""
    command = "; ".join(f'echo "$(getprop {name})"' for name in _PROPERTIES)
    lines = adb.shell(command, timeout=_TIMEOUT).text.split("\n")
    told = dict(zip(_PROPERTIES, (line.strip() for line in [*lines, *[""] * len(_PROPERTIES)]), strict=False))
    maker, model = told["ro.product.manufacturer"], told["ro.product.model"] or adb.device.model.replace("_", " ")
    name = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    system = told["ro.build.version.release"]
    api = told["ro.build.version.sdk"]
    soc = " ".join(filter(None, (told["ro.soc.manufacturer"], told["ro.soc.model"]))) or told["ro.board.platform"]
    parts = (name.strip() or adb.device.serial, f"Android {system} (API {api})" if system else "", soc)
    abis = told["ro.product.cpu.abilist"] or told["ro.product.cpu.abi"]
    return Phone(", ".join(filter(None, parts)), tuple(filter(None, abis.split(","))))


def state_of(adb: Adb) -> State:
    """Asks the phone how it feels."""
    command = "dumpsys battery; dumpsys thermalservice; echo low_power=$(settings get global low_power)"
    return read_state(adb.shell(command, timeout=_TIMEOUT).text)


def read_state(text: str) -> State:
    """The state in the output of `dumpsys battery`, `dumpsys thermalservice` and `settings get global low_power`.

    >>> read_state("  USB powered: true\\n  level: 84\\n  temperature: 326\\nThermal Status: 1\\nlow_power=0")
    State(level=84, celsius=32.6, power='USB', thermal=1, saver=False)
    """
    found = {name.strip().lower(): value.strip() for name, value in re.findall(r"^\s*([\w ]+)[:=](.*)$", text, re.M)}
    numbers = {name: int(value) for name, value in found.items() if re.fullmatch(r"-?\d+", value)}
    power = [name.split()[0].upper() for name, value in found.items() if name.endswith("powered") and value == "true"]
    level, scale, tenths = numbers.get("level"), numbers.get("scale", 100), numbers.get("temperature")
    thermal = numbers.get("thermal status")
    return State(
        level=None if level is None else round(100 * level / (scale or 100)),
        celsius=None if tenths is None else tenths / 10,
        power=" and ".join({"AC": "the mains", "WIRELESS": "a wireless charger"}.get(one, one) for one in power),
        thermal=thermal if thermal is not None and 0 <= thermal < len(_THERMAL) else None,
        saver=found.get("low_power") == "1",
    )


def remarks(before: State, after: State) -> list[str]:
    """What a reader of the times must know about the phone's state: always the state, and what made it slower."""
    notes = [f"phone: {before}" + (f"; after: {after}" if after != before else "")]
    worst = max(before.thermal or 0, after.thermal or 0)
    if worst:
        notes.append(f"the phone throttles itself (thermal status {_THERMAL[worst]}): let it cool down and repeat")
    hottest = max(before.celsius or 0.0, after.celsius or 0.0)
    if not worst and hottest > _WARM:
        notes.append(f"the phone is warm ({hottest:.1f} C) and may slow down: let it cool down and repeat")
    if before.saver or after.saver:
        notes.append("battery saver is on, which slows the phone: switch it off and repeat")
    if before.level is not None and before.level < _LOW_BATTERY and not before.power:
        notes.append(f"the battery is low ({before.level} %), some phones slow down: charge it and repeat")
    return notes

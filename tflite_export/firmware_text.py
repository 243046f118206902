"""C text of a firmware folder: the file as an array, and what is known of its inputs and outputs."""

import hashlib
import textwrap
from dataclasses import dataclass

from tflite_export.graph import Tensor

# C type of each type that tflite-micro hands over at its inputs and outputs.
C_TYPES = {
    "FLOAT32": "float",
    "FLOAT64": "double",
    "INT8": "int8_t",
    "INT16": "int16_t",
    "INT32": "int32_t",
    "INT64": "int64_t",
    "UINT8": "uint8_t",
    "UINT16": "uint16_t",
    "UINT32": "uint32_t",
    "UINT64": "uint64_t",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class End:
    """An input or an output of the file.

    Attributes:
        side: "input" or "output".
        index: as `interpreter.input(index)` counts.
        label: its name in the signature, for people.
        tensor: the tensor.
    """

    side: str
    index: int
    label: str
    tensor: Tensor

    @property
    def id(self) -> str:
        """How C calls it: "input0"."""
        return f"{self.side}{self.index}"

    @property
    def is_integer_grid(self) -> bool:
        """Whether integers stand for real numbers on one scale."""
        grid = self.tensor.quantization
        integers = self.tensor.type in ("INT8", "INT16", "INT32", "UINT8")
        return integers and grid is not None and grid.scale.size == 1


@dataclass(frozen=True)
class Plan:
    """What the texts are written from.

    Attributes:
        name: a C identifier.
        content: the `.tflite` file.
        ends: inputs, then outputs.
        methods: of the resolver.
        arena: bytes of the array; None when it could not be measured.
        arena_note: where the number comes from, or why there is none.
        variables: number of resource variables.
        checkout: folder of tflite-micro for the Makefile; "" when the user names it later.
    """

    name: str
    content: bytes
    ends: tuple[End, ...]
    methods: tuple[str, ...]
    arena: int | None
    arena_note: str
    variables: int
    checkout: str

    @property
    def macro(self) -> str:
        """The name in capitals, which every macro starts with."""
        return self.name.upper()

    @property
    def origin(self) -> str:
        """One line that tells which file this is."""
        digest = hashlib.sha256(self.content).hexdigest()
        return f"{self.name}: a TensorFlow Lite file of {len(self.content)} bytes, SHA-256 {digest[:16]}."


def header(plan: Plan) -> str:
    """NAME.h: the array's declaration, sizes, and one block of constants for each input and output."""
    name, macro = plan.name, plan.macro
    counts = {side: sum(end.side == side for end in plan.ends) for side in ("input", "output")}
    parts = [
        f"""\
/* {plan.origin} */
#ifndef {macro}_H_
#define {macro}_H_

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {macro}_MODEL_BYTES {len(plan.content)}
/* The file, on a 16 byte boundary as the interpreter needs it. */
extern const unsigned char {name}_model[{macro}_MODEL_BYTES];
""",
        _arena(plan),
        f"#define {macro}_INPUTS {counts['input']}\n#define {macro}_OUTPUTS {counts['output']}\n",
        *(_end(plan, end) for end in plan.ends),
        f"""\
#ifdef __cplusplus
}}
#endif

#endif /* {macro}_H_ */
""",
    ]
    return "\n".join(parts)


def _arena(plan: Plan) -> str:
    lines = "\n".join(f" * {line}" for line in textwrap.wrap(_comment(plan.arena_note), 100))
    if plan.arena is None:
        return f"/* No {plan.macro}_ARENA_BYTES:\n{lines} */\n"
    return (
        f"/* Size of the interpreter's array.\n{lines} */\n"
        f"#ifndef {plan.macro}_ARENA_BYTES\n#define {plan.macro}_ARENA_BYTES {plan.arena}\n#endif\n"
    )


def _end(plan: Plan, end: End) -> str:
    prefix, tensor = f"{plan.macro}_{end.id.upper()}", end.tensor
    shape = ", ".join(map(str, tensor.shape)) or "1"
    text = f"/* {end.side.capitalize()} {end.index}: {_comment(end.label[:200])}"
    text += ", real = SCALE * (integer - ZERO_POINT). */\n" if end.is_integer_grid else ". */\n"
    text += f"#define {prefix}_NAME {_string(end.label)}\n"
    text += f"#define {prefix}_RANK {len(tensor.shape)}\n#define {prefix}_SHAPE {{{shape}}}\n"
    text += f"#define {prefix}_VALUES {tensor.size}\ntypedef {C_TYPES[tensor.type]} {plan.name}_{end.id}_t;\n"
    if end.is_integer_grid and tensor.quantization is not None:
        grid = tensor.quantization
        text += f"#define {prefix}_SCALE {_float(grid.scale[0])}\n"
        text += f"#define {prefix}_ZERO_POINT ({int(grid.zero_point[0])})\n"
        text += _convert(plan.name, prefix, end)
    return text


def _convert(name: str, prefix: str, end: End) -> str:
    """The two functions between real numbers and integers, which every firmware needs at its ends."""
    bits = int(end.tensor.type.removeprefix("U").removeprefix("INT"))
    low, high = (0, 2**bits - 1) if end.tensor.type.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    dequantize = f"""\
static inline float {name}_{end.id}_real({name}_{end.id}_t integer) {{
  return {prefix}_SCALE * (float)((int32_t)integer - ({prefix}_ZERO_POINT));
}}
"""
    if end.side == "output" or bits > 16:  # a float cannot tell all 32 bit integers apart
        return dequantize
    return f"""\
static inline {name}_{end.id}_t {name}_{end.id}_integer(float real) {{
  const float steps = real / {prefix}_SCALE + (float)({prefix}_ZERO_POINT);
  if (!(steps > {low}.0f)) return {low}; /* also not-a-number */
  if (steps > {high}.0f) return {high};
  return ({name}_{end.id}_t)(steps < 0.0f ? steps - 0.5f : steps + 0.5f);
}}
{dequantize}"""


def source(plan: Plan) -> str:
    """NAME.c: the bytes of the file, twelve a line."""
    rows = [plan.content[start : start + 12] for start in range(0, len(plan.content), 12)]
    body = "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    return f"""\
/* {plan.origin} */
#include "{plan.name}.h"

#if defined(__GNUC__) || defined(__clang__)
#define {plan.macro}_ALIGNED __attribute__((aligned(16)))
#elif defined(__cplusplus)
#define {plan.macro}_ALIGNED alignas(16)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {plan.macro}_ALIGNED _Alignas(16)
#else
#error "This compiler knows no way to align an array."
#endif

{plan.macro}_ALIGNED const unsigned char {plan.name}_model[{plan.macro}_MODEL_BYTES] = {{
{body}
}};
"""


def _float(value: float) -> str:
    """The shortest C literal of a float32.

    >>> import numpy as np
    >>> _float(np.float32(1 / 255)), _float(np.float32(1))
    ('0.003921569f', '1.0f')
    """
    return f"{value!s}f"


def _comment(text: str) -> str:
    """Text that cannot end or open a comment and is ASCII."""
    shown = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    return shown.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")


def _string(text: str) -> str:
    r"""A C string literal of UTF-8; what is not plain is written in octal, which takes exactly three digits.

    >>> print(_string('a"b'))
    "a\042b"
    """
    plain = set(b" !#$%&'()*+,-./:;<=>@[]^_`{|}~") | set(range(48, 58)) | set(range(65, 91)) | set(range(97, 123))
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()[:200]) + '"'

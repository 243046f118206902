"""C++ text of a firmware folder: the resolver, an example and its Makefile, all against tflite-micro."""

from collections.abc import Sequence

from tflite_export.firmware_text import End, Plan, header, source
from tflite_export.resolver import HEADER


def texts(plan: Plan) -> Sequence[tuple[str, str]]:
    """(file name, text) of everything, in the order of writing."""
    return (
        (f"{plan.name}.h", header(plan)),
        (f"{plan.name}.c", source(plan)),
        (f"{plan.name}_resolver.h", resolver(plan)),
        (f"{plan.name}_main.cc", main(plan)),
        ("Makefile", makefile(plan)),
    )


def resolver(plan: Plan) -> str:
    """NAME_resolver.h: a resolver with the operations of the file and no others."""
    calls = "\n".join(f"  if (resolver.{method}() != kTfLiteOk) return kTfLiteError;" for method in plan.methods)
    return f"""\
/* The operations of {plan.origin} */
#ifndef {plan.macro}_RESOLVER_H_
#define {plan.macro}_RESOLVER_H_

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace {plan.name} {{

/* An interpreter links only the kernels that are registered: these {len(plan.methods)}. */
using Resolver = tflite::MicroMutableOpResolver<{max(len(plan.methods), 1)}>;

inline TfLiteStatus AddOperations(Resolver& resolver) {{
{calls or "  (void)resolver;"}
  return kTfLiteOk;
}}

}}  // namespace {plan.name}

#endif  // {plan.macro}_RESOLVER_H_
"""


def main(plan: Plan) -> str:
    """NAME_main.cc: opens the file, runs it once on zeros, prints each output's first values."""
    name, macro = plan.name, plan.macro
    inputs, outputs = (
        "\n".join(_run(plan, end) for end in plan.ends if end.side == side) for side in ("input", "output")
    )
    guard = ""
    if plan.arena is None:
        unknown = f"{macro}_ARENA_BYTES is not known, see {name}.h: pass it with -D."
        guard = f'#ifndef {macro}_ARENA_BYTES\n#error "{unknown}"\n#endif\n\n'
    interpreter = f"static tflite::MicroInterpreter interpreter(model, resolver, {name}_arena, sizeof({name}_arena));"
    includes = ""
    if plan.variables:
        headers = ("micro_allocator.h", "micro_resource_variable.h")
        includes = "".join(f'#include "tensorflow/lite/micro/{file}"\n' for file in headers)
        interpreter = f"""\
tflite::MicroAllocator* allocator = tflite::MicroAllocator::Create({name}_arena, sizeof({name}_arena));
  static tflite::MicroInterpreter interpreter(
      model, resolver, allocator, tflite::MicroResourceVariables::Create(allocator, {plan.variables}));"""
    return f"""\
/* An example that runs {name} once: copy it and put real samples in. */
#include <cstdint>

#include "{name}.h"
#include "{name}_resolver.h"
{includes}#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

{guard}alignas(16) static uint8_t {name}_arena[{macro}_ARENA_BYTES];

int main() {{
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel({name}_model);
  if (model->version() != TFLITE_SCHEMA_VERSION) {{
    MicroPrintf("{name}: schema %d is not %d", static_cast<int>(model->version()), TFLITE_SCHEMA_VERSION);
    return 1;
  }}
  static {name}::Resolver resolver;
  if ({name}::AddOperations(resolver) != kTfLiteOk) return 1;
  {interpreter}
  if (interpreter.AllocateTensors() != kTfLiteOk) {{
    MicroPrintf("{name}: the arena of %d bytes does not suffice", {macro}_ARENA_BYTES);
    return 1;
  }}
  MicroPrintf("{name}: %d of %d bytes of arena in use", static_cast<int>(interpreter.arena_used_bytes()),
              {macro}_ARENA_BYTES);
{inputs}
  if (interpreter.Invoke() != kTfLiteOk) {{
    MicroPrintf("{name}: the inference failed");
    return 1;
  }}
{outputs}
  return 0;
}}
"""


def _run(plan: Plan, end: End) -> str:
    """Lines of the example that fill an input or print an output."""
    prefix, kind = f"{plan.macro}_{end.id.upper()}", f"{plan.name}_{end.id}_t"
    fetch = f"""\
  {kind}* {end.id} = interpreter.typed_{end.side}_tensor<{kind}>({end.index});
  if ({end.id} == nullptr) return 1;
"""
    if end.side == "input":
        grid = end.is_integer_grid
        zero = f"{plan.name}_{end.id}_integer(0.0f)" if grid and end.tensor.type != "INT32" else f"{kind}()"
        return fetch + f"  for (int i = 0; i < {prefix}_VALUES; ++i) {end.id}[i] = {zero};"
    shown, form = (f"static_cast<int>({end.id}[i])", "%d")
    if end.tensor.type.startswith("FLOAT"):
        shown, form = (f"static_cast<double>({end.id}[i])", "%f")
    return fetch + (
        f"  for (int i = 0; i < {prefix}_VALUES && i < 10; ++i)\n"
        f'    MicroPrintf("{end.id}[%d] = {form}", i, {shown});'
    )


def makefile(plan: Plan) -> str:
    """Makefile: compiles the example and links it with the library that the user has built of tflite-micro."""
    name = plan.name
    return f"""\
# make TFLM=tflite-micro LIB=libtensorflow-microlite.a
# make TFLM=tflite-micro LIB=... CC=arm-none-eabi-gcc CXX=arm-none-eabi-g++ CPU="-mcpu=cortex-m4 -mthumb"
#
# TFLM  a checkout of https://github.com/tensorflow/tflite-micro with the headers that its Makefile
#       downloads, or a tree that its create_tflm_tree.py wrote
# LIB   its library (target `microlite` of its Makefile), built with the same CPU
TFLM ?= {plan.checkout}
LIB ?= $(firstword $(wildcard $(TFLM)/gen/*/lib/libtensorflow-microlite.a))
CPU ?=

ifeq ($(wildcard $(TFLM)/{HEADER.as_posix()}),)
$(error TFLM must name a checkout of tflite-micro: make TFLM=folder)
endif

DOWNLOADS := $(TFLM)/tensorflow/lite/micro/tools/make/downloads
INCLUDES := -I. -I$(TFLM) \\
  -I$(DOWNLOADS)/flatbuffers/include -I$(DOWNLOADS)/gemmlowp -I$(DOWNLOADS)/ruy \\
  -I$(TFLM)/third_party/flatbuffers/include -I$(TFLM)/third_party/gemmlowp -I$(TFLM)/third_party/ruy
# TF_LITE_STATIC_MEMORY is part of the library's layout of tensors: without it nothing fits.
COMMON := -O2 -Wall -DTF_LITE_STATIC_MEMORY -ffunction-sections -fdata-sections $(CPU) $(INCLUDES)

{name}: {name}.o {name}_main.o $(LIB)
\t$(if $(LIB),,$(error LIB must name libtensorflow-microlite.a: make LIB=file))
\t$(CXX) $(CPU) -Wl,--gc-sections $^ -lm -o $@

{name}.o: {name}.c {name}.h
\t$(CC) -std=c11 $(COMMON) -c $< -o $@

{name}_main.o: {name}_main.cc {name}.h {name}_resolver.h
\t$(CXX) -std=c++17 -fno-rtti -fno-exceptions $(COMMON) -c $< -o $@

clean:
\t$(RM) {name} {name}.o {name}_main.o

.PHONY: clean
"""

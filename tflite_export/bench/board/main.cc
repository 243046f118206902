/* Runs model.tflite on the inputs of inputs.c and prints what tflite_export.bench.cortex_m reads, a line each:
 *
 *   calibration INSTRUCTIONS TICKS      a loop of known length
 *   arena BYTES                         in use
 *   event TAG TICKS                     each operation of one inference, after the first
 *   inference TICKS                     without a profiler
 *   output FEED INDEX HEX...            raw bytes
 *   done
 */
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "inputs.h"
#include "model.h"
#include "model_resolver.h"
#include "tensorflow/lite/micro/debug_log.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_profiler_interface.h"
#include "tensorflow/lite/micro/micro_resource_variable.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern "C" {

uint64_t ticks(void);

void DebugLog(const char* format, va_list arguments) { vprintf(format, arguments); }

int DebugVsnprintf(char* buffer, size_t size, const char* format, va_list arguments) {
  return vsnprintf(buffer, size, format, arguments);
}

}  // extern "C"

namespace {

__attribute__((section(".arena"), aligned(16))) uint8_t arena[BOARD_ARENA_BYTES];

constexpr uint32_t kLoops = 1000000;
constexpr int kEvents = 4096;

/* Two instructions a loop. */
uint64_t Calibrate() {
  uint32_t left = kLoops;
  const uint64_t begin = ticks();
  __asm volatile("1: subs %0, %0, #1\n bne 1b\n" : "+r"(left) : : "cc");
  return ticks() - begin;
}

class Events : public tflite::MicroProfilerInterface {
 public:
  uint32_t BeginEvent(const char* tag) override {
    if (!on || count == kEvents) return kEvents;
    tags[count] = tag;
    spent[count] = ticks();
    return static_cast<uint32_t>(count++);
  }

  void EndEvent(uint32_t event) override {
    if (event < kEvents) spent[event] = ticks() - spent[event];
  }

  bool on = false;
  int count = 0;
  const char* tags[kEvents];
  uint64_t spent[kEvents];
};

Events events;

void Fill(tflite::MicroInterpreter& interpreter, int feed) {
  for (int index = 0; index < BOARD_INPUTS; ++index) {
    TfLiteTensor* input = interpreter.input(index);
    const size_t size = input->bytes < board_sizes[index] ? input->bytes : board_sizes[index];
    memcpy(input->data.raw, board_inputs[feed * BOARD_INPUTS + index], size);
  }
}

void Print(tflite::MicroInterpreter& interpreter, int feed) {
  static const char digits[] = "0123456789abcdef";
  char text[129];
  for (size_t index = 0; index < interpreter.outputs_size(); ++index) {
    const TfLiteTensor* output = interpreter.output(index);
    printf("output %d %d ", feed, static_cast<int>(index));
    for (size_t at = 0; at < output->bytes; at += 64) {
      size_t length = 0;
      for (size_t next = at; next < output->bytes && next < at + 64; ++next) {
        const uint8_t byte = static_cast<uint8_t>(output->data.raw[next]);
        text[length++] = digits[byte >> 4];
        text[length++] = digits[byte & 15];
      }
      text[length] = 0;
      fputs(text, stdout);
    }
    putchar('\n');
  }
}

}  // namespace

int main() {
  const uint64_t calibration = Calibrate();
  printf("calibration %lu %lu\n", 2ul * kLoops, static_cast<unsigned long>(calibration));
  static model::Resolver resolver;
  if (model::AddOperations(resolver) != kTfLiteOk) return 1;
  tflite::MicroAllocator* allocator = tflite::MicroAllocator::Create(arena, sizeof(arena));
  tflite::MicroResourceVariables* variables =
      BOARD_VARIABLES ? tflite::MicroResourceVariables::Create(allocator, BOARD_VARIABLES) : nullptr;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(model_model), resolver, allocator, variables, &events);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  printf("arena %lu\n", static_cast<unsigned long>(interpreter.arena_used_bytes()));
  for (int feed = 0; feed < BOARD_FEEDS; ++feed) {
    if (interpreter.Reset() != kTfLiteOk) return 3;
    Fill(interpreter, feed);
    if (interpreter.Invoke() != kTfLiteOk) return 4;
    Print(interpreter, feed);
  }
  if (interpreter.Reset() != kTfLiteOk) return 3;
  Fill(interpreter, 0);
  const uint64_t begin = ticks();
  if (interpreter.Invoke() != kTfLiteOk) return 4;
  printf("inference %llu\n", static_cast<unsigned long long>(ticks() - begin));
  events.on = true;
  Fill(interpreter, 0);
  if (interpreter.Invoke() != kTfLiteOk) return 4;
  events.on = false;
  for (int index = 0; index < events.count; ++index) {
    printf("event %s %llu\n", events.tags[index], static_cast<unsigned long long>(events.spent[index]));
  }
  printf("done\n");
  return 0;
}

/* From reset to main, and the counter of ticks. Semihosting carries what is printed to the emulator's caller. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern uint32_t __stack;
extern uint8_t __data_start, __data_end, __data_from, __bss_start, __bss_end;
extern int main(void);
extern void initialise_monitor_handles(void);
extern void __libc_init_array(void);

#define SYSTICK_CONTROL (*(volatile uint32_t*)0xE000E010)
#define SYSTICK_RELOAD (*(volatile uint32_t*)0xE000E014)
#define SYSTICK_VALUE (*(volatile uint32_t*)0xE000E018)
#define COPROCESSORS (*(volatile uint32_t*)0xE000ED88)
#define SYSTICK_TOP 0xFFFFFFu

static volatile uint32_t rounds;

/* Asked for by destructors of static objects, which never run. */
void* __dso_handle = 0;

void _init(void) {}
void _fini(void) {}

static void Fault(void) {
  printf("\nfault: the processor took an exception\n");
  exit(98);
}

static void Tick(void) { ++rounds; }

/* Ticks since the start: SysTick counts down over 24 bits, its interrupt counts the rounds. */
uint64_t ticks(void) {
  uint32_t before, value;
  do {
    before = rounds;
    value = SYSTICK_VALUE;
  } while (before != rounds);
  return (uint64_t)before * (SYSTICK_TOP + 1u) + (SYSTICK_TOP - value);
}

__attribute__((noreturn)) void Reset_Handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  COPROCESSORS |= 0xFu << 20;
  __asm volatile("dsb\n isb");
#endif
  for (uint8_t* at = &__bss_start; at < &__bss_end; ++at) *at = 0;
  const uint8_t* from = &__data_from;
  for (uint8_t* at = &__data_start; at < &__data_end;) *at++ = *from++;
  initialise_monitor_handles();
  __libc_init_array();
  SYSTICK_RELOAD = SYSTICK_TOP;
  SYSTICK_VALUE = 0;
  SYSTICK_CONTROL = 7;
  exit(main());
}

__attribute__((section(".vectors"), used)) void* const vectors[64] = {
    &__stack, Reset_Handler, Fault, Fault, Fault, Fault, Fault, Fault, 0, 0, 0, Fault, 0, 0, 0, Tick,
};

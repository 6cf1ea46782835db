// Compile inner loops for several x86 instruction sets; the widest that the machine has is chosen at run time.
#pragma once

// FGCLIP_SIMD stands before a function whose loops the compiler vectorises. What the function calls must be inlined:
// a call would run as compiled for the oldest machine.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FGCLIP_X86 1
#define FGCLIP_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FGCLIP_SIMD
#endif

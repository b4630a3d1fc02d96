// Threads that go through the same phases of one piece of work. A phase is done when its items are,
// whoever did them: nobody waits for a thread that the system has not let run, only for the items
// that a thread has taken. So starting a phase costs a fraction of a microsecond, and a machine that
// does other work as well slows a step down no more than it must.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace glm {

struct alignas(64) Phase {
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
};

// One thread's way through the phases.
class Team {
 public:
  Team(Phase* phases, int threads) : phase_(phases), shares_(int64_t{2} * threads) {}

  // Calls body(begin, end) on shares of [0, count), multiples of `piece`, and returns when all of
  // it is done. Every thread must come here with the same arguments.
  template <typename Body>
  void each(int64_t count, int64_t piece, const Body& body) {
    Phase& phase = *phase_++;
    int64_t begin = phase.next.load(std::memory_order_relaxed);
    while (begin < count) {
      const int64_t share = (count - begin) / shares_ / piece * piece;
      int64_t end = begin + (share > piece ? share : piece);
      end = end < count ? end : count;
      if (!phase.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      body(begin, end);
      phase.done.fetch_add(end - begin, std::memory_order_release);
      begin = phase.next.load(std::memory_order_relaxed);
    }
    for (int spins = 0; phase.done.load(std::memory_order_acquire) < count; ++spins) {
      if (spins < kSpins) {
        pause();
      } else {
        sched_yield();
      }
    }
  }

 private:
  static constexpr int kSpins = 2000;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  Phase* phase_;
  int64_t shares_;
};

}  // namespace glm

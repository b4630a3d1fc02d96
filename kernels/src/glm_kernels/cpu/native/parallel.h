// Work shared between threads. The threads are those of PyTorch's OpenMP, so that they neither
// compete with its own nor have to be started: Python hands over the address of GOMP_parallel of
// the library that torch has loaded. Where there is none, the calling thread does it all.
#pragma once

#include <atomic>
#include <cstdint>

namespace glm {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
extern GompParallel gomp_parallel;

// Calls body(begin, end) until [0, count) is done. A free thread takes a share of what is left, at
// least `piece` and a multiple of it: long runs at first, which prefetching likes, short ones at the
// end, so that the threads finish together even when others use the processor too.
template <typename Body>
void parallel_for(int64_t count, int64_t piece, int threads, const Body& body) {
  if (threads <= 1 || count <= piece || gomp_parallel == nullptr) {
    body(int64_t{0}, count);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next;
    int64_t count, piece, shares;
    const Body* body;
  } shared{{0}, count, piece, int64_t{2} * threads, &body};
  const auto run = [](void* data) {
    auto& work = *static_cast<Shared*>(data);
    int64_t begin = work.next.load(std::memory_order_relaxed);
    while (begin < work.count) {
      const int64_t share = (work.count - begin) / work.shares / work.piece * work.piece;
      const int64_t end = begin + (share > work.piece ? share : work.piece);
      if (!work.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      (*work.body)(begin, end < work.count ? end : work.count);
      begin = work.next.load(std::memory_order_relaxed);
    }
  };
  const int64_t pieces = (count + piece - 1) / piece;
  gomp_parallel(run, &shared, static_cast<unsigned>(pieces < threads ? pieces : threads), 0);
}

}  // namespace glm

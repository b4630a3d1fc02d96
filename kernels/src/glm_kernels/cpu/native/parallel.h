// Work shared between threads. The threads are those of PyTorch's OpenMP, so that they neither
// compete with its own nor have to be started: Python hands over the address of GOMP_parallel of
// the library that torch has loaded. Where there is none, the calling thread does it all.
#pragma once

#include <atomic>
#include <cstdint>

namespace glm {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
extern GompParallel gomp_parallel;

// Calls body(begin, end) until [0, count) is done, in pieces of `piece`. A thread takes the next
// piece when it is free: on a busy machine the slower one simply does fewer.
template <typename Body>
void parallel_for(int64_t count, int64_t piece, int threads, const Body& body) {
  if (threads <= 1 || count <= piece || gomp_parallel == nullptr) {
    body(int64_t{0}, count);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next;
    int64_t count, piece;
    const Body* body;
  } shared{{0}, count, piece, &body};
  const auto run = [](void* data) {
    auto& work = *static_cast<Shared*>(data);
    for (int64_t begin; (begin = work.next.fetch_add(work.piece)) < work.count;) {
      const int64_t end = begin + work.piece;
      (*work.body)(begin, end < work.count ? end : work.count);
    }
  };
  const int64_t pieces = (count + piece - 1) / piece;
  gomp_parallel(run, &shared, static_cast<unsigned>(pieces < threads ? pieces : threads), 0);
}

}  // namespace glm

// Work shared among threads, by torch's own team of them where it is known.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

using Index = std::int64_t;
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);
extern std::atomic<Team> alexnet_team;

// Calls body(first, last) over [0, units) in pieces; which thread takes a piece changes nothing in its result.
template <class Body> bool parallel(Index units, Index elements, Index threads, Body body) {
  struct Shared {
    std::atomic<Index> next{0};
    std::atomic<bool> failed{false};
    Index units, pieces;
    Body* body;
  } shared;
  const Index worth = elements / 32768;  // waking a thread for less costs more than it saves
  threads = std::max<Index>(1, std::min({threads, units, worth}));
  shared.units = units;
  shared.pieces = threads == 1 ? 1 : std::min(units, 4 * threads);
  shared.body = &body;
  auto run = [](void* data) {
    Shared& s = *static_cast<Shared*>(data);
    try {
      for (Index piece; (piece = s.next.fetch_add(1)) < s.pieces;)
        (*s.body)(piece * s.units / s.pieces, (piece + 1) * s.units / s.pieces);
    } catch (...) {
      s.failed = true;
    }
  };
  if (threads == 1) {
    run(&shared);
  } else if (Team fork = alexnet_team.load()) {
    fork(run, &shared, unsigned(threads), 0);
  } else {
    std::vector<std::thread> helpers;
    try {
      for (Index i = 1; i < threads; ++i) helpers.emplace_back(run, static_cast<void*>(&shared));
    } catch (...) {  // fewer helpers than asked for: this thread takes their pieces
    }
    run(&shared);
    for (std::thread& helper : helpers) helper.join();
  }
  return !shared.failed;
}

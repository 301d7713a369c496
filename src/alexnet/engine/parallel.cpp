// The team of threads that shares the work.

#include "parallel.h"

std::atomic<Team> alexnet_team{nullptr};

// `fork` is the `GOMP_parallel` of an OpenMP runtime; null: threads of our own.
extern "C" void alexnet_use_team(void* fork) { alexnet_team = reinterpret_cast<Team>(fork); }

// Calls one kernel as standard input says, and writes what it returned and left in memory to standard output.
//
// In and out are int64 numbers and raw bytes. In: how many arguments, the arguments (a double by its bits, a pointer as
// the number of a buffer or -1), how many buffers, their sizes, their bytes. Out: what was returned, the buffers' bytes.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#endif

using Number = std::int64_t;

struct Arguments {
  std::vector<Number> values;
  std::vector<std::vector<char>> buffers;
  void* pointer(int i) const { return values[i] < 0 ? nullptr : const_cast<char*>(buffers[values[i]].data()); }
  double real(int i) const {
    double d;
    std::memcpy(&d, &values[i], sizeof d);
    return d;
  }
};

struct Kernel {
  const char* name;
  int (*call)(const Arguments&);
};

extern "C" const char* alexnet_targets();

#include "kernels.inc"  // KERNELS[]: a call of each kernel, made from the table of their arguments

static std::vector<Number> read(Number count) {
  std::vector<Number> numbers(count);
  if (count && std::fread(numbers.data(), sizeof(Number), count, stdin) != std::size_t(count)) std::perror("input");
  return numbers;
}

int main(int count, char** words) {
#if defined(_WIN32)
  _setmode(0, _O_BINARY), _setmode(1, _O_BINARY);
#endif
  if (count < 2) return std::puts(alexnet_targets()), 0;
  for (const Kernel& kernel : KERNELS) {
    if (std::strcmp(kernel.name, words[1])) continue;
    Arguments arguments{read(read(1)[0]), {}};
    for (Number size : read(read(1)[0])) arguments.buffers.emplace_back(size);
    for (auto& buffer : arguments.buffers)
      if (std::fread(buffer.data(), 1, buffer.size(), stdin) != buffer.size()) return std::perror("input"), 1;
    const Number returned = kernel.call(arguments);
    std::fwrite(&returned, sizeof returned, 1, stdout);
    for (auto& buffer : arguments.buffers) std::fwrite(buffer.data(), 1, buffer.size(), stdout);
    return 0;
  }
  return std::fprintf(stderr, "no kernel %s\n", words[1]), 1;
}

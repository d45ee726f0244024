/* mark FILE INDEX: append {CLOCK_MONOTONIC in ns, INDEX, pid} to FILE, then
 * wait for a signal. The smallest process whose start can be timed. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
	struct { int64_t ns; int32_t index, pid; } record;
	struct timespec now;
	if (argc < 3) return 2;
	clock_gettime(CLOCK_MONOTONIC, &now);
	record.ns = now.tv_sec * 1000000000LL + now.tv_nsec;
	record.index = atoi(argv[2]);
	record.pid = getpid();
	int fd = open(argv[1], O_WRONLY | O_APPEND);
	if (fd < 0 || write(fd, &record, sizeof record) != sizeof record) return 1;
	close(fd);
	for (;;) pause();
}

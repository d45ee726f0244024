/* chatter LINES: write LINES lines of 100 bytes to stdout as fast as they are
 * taken, forty to a write(2), then print the time it took (ns)
 * and the CPU used (ns) to stderr, and wait for a signal. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ns(clockid_t id) {
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
	static char block[4000];
	if (argc < 2) return 2;
	long blocks = atol(argv[1]) / 40;
	memset(block, 'x', sizeof block);
	for (int i = 99; i < (int)sizeof block; i += 100) block[i] = '\n';
	int64_t begin = clock_ns(CLOCK_MONOTONIC);
	for (long i = 0; i < blocks; i++)
		for (size_t done = 0; done < sizeof block;) {
			ssize_t n = write(1, block + done, sizeof block - done);
			if (n < 0) return 1;
			done += n;
		}
	fprintf(stderr, "took %lld ns, cpu %lld ns\n", (long long)(clock_ns(CLOCK_MONOTONIC) - begin),
		(long long)clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	for (;;) pause();
}

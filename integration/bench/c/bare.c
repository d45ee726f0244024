/* bare MARK FILE COUNT: the least that a supervisor can be. Starts COUNT
 * copies of MARK with posix_spawn and prints the CLOCK_MONOTONIC time (ns) at
 * which it began; then replaces every child that dies until SIGTERM, which
 * kills them all. */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static pid_t *pids;
static int count;

static void end(int sig) {
	(void)sig;
	for (int i = 0; i < count; i++) kill(pids[i], SIGKILL);
	_exit(0);
}

static void start(char *mark, char *file, int i) {
	char index[16];
	snprintf(index, sizeof index, "%d", i);
	char *argv[] = {mark, file, index, NULL};
	if (posix_spawn(&pids[i], mark, NULL, NULL, argv, environ)) exit(1);
}

int main(int argc, char **argv) {
	struct timespec now;
	if (argc < 4) return 2;
	count = atoi(argv[3]);
	pids = calloc(count, sizeof *pids);
	signal(SIGTERM, end);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
	fflush(stdout);
	for (int i = 0; i < count; i++) start(argv[1], argv[2], i);
	for (;;) {
		pid_t dead = waitpid(-1, NULL, 0);
		for (int i = 0; i < count; i++)
			if (pids[i] == dead) start(argv[1], argv[2], i);
	}
}

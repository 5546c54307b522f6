/* A wall clock that a test moves: loaded before the agent, it adds the seconds in the file that E2E_CLOCK names to CLOCK_REALTIME.
 * The file is mapped at the start, before any jail closes, and the test writes it while the agent runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int (*real_gettime)(clockid_t, struct timespec *);
static volatile int64_t *ahead_s;

__attribute__((constructor)) static void begin(void) {
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("E2E_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        ahead_s = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_gettime)
        begin();
    int failed = real_gettime(clock, time);
    if (!failed && clock == CLOCK_REALTIME && ahead_s)
        time->tv_sec += (time_t)*ahead_s;
    return failed;
}

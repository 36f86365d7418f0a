/* The wall's clock of one process, moved as a file says: two numbers of 64 bits, by how
   much (ns), and at what time (ns since 1970) it stands still, 0 if it goes. Clocks that
   measure are left alone. For LD_PRELOAD; the file's name is in CLOCK_SHIFT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#define SECOND 1000000000LL
static int (*real)(clockid_t, struct timespec *);
static volatile long long *told;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_SHIFT"), O_RDONLY | O_CLOEXEC);
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    told = mmap(0, 16, PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    if (!real) begin();
    int failed = real(id, at);
    if (failed || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return failed;
    long long ns = told[1] ? told[1] : at->tv_sec * SECOND + at->tv_nsec + told[0];
    at->tv_sec = ns / SECOND;
    at->tv_nsec = ns % SECOND;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

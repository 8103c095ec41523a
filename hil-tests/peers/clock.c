/* A wall clock in the test's hand, for LD_PRELOAD: the file named by DERD_TEST_CLOCK holds "<seconds to add> <1: synchronised>".
   The monotonic clock stays what it is. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static void look(long long *add, int *is_synced) {
    const char *path = getenv("DERD_TEST_CLOCK");
    FILE *file = path ? fopen(path, "re") : NULL;
    *add = 0;
    *is_synced = 1;
    if (!file) return;
    if (fscanf(file, "%lld %d", add, is_synced) < 1) *add = 0;
    fclose(file);
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    long done = syscall(SYS_clock_gettime, id, ts);
    if (done == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long add;
        int is_synced;
        look(&add, &is_synced);
        ts->tv_sec += add;
    }
    return (int)done;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec ts;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return -1;
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec ts;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return -1;
    if (out) *out = ts.tv_sec;
    return ts.tv_sec;
}

int adjtimex(struct timex *tx) {
    long long add;
    int is_synced;
    look(&add, &is_synced);
    long state = syscall(SYS_adjtimex, tx);
    if (state < 0) return -1;
    if (is_synced) {
        tx->status &= ~STA_UNSYNC;
        return TIME_OK;
    }
    tx->status |= STA_UNSYNC;
    return TIME_ERROR;
}

/* The thread pool from many threads at once, without Python, so that ThreadSanitizer sees all of it (.ci/races).
 *
 *   threads_driver [ROUNDS]    exit 1: a wrong result
 *   threads_driver --racing    two threads add to one number without a lock: ThreadSanitizer must say so */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"

enum { CALLERS = 4, TASKS = 64, ROWS = 40, COLS = 300, N = 150, PER_ROW = 20 };

static int rounds = 200;
static atomic_int wrong;

static void check(int right, const char *what)
{
    if (right) return;
    atomic_fetch_add(&wrong, 1);
    printf("wrong: %s\n", what);
}

/* Plain numbers, one a task: a task done twice, or read before it is done, is a race that the sanitizer sees. */
typedef struct {
    int64_t done[TASKS];
} tally;

static void count(void *arg, int64_t t) { ((tally *)arg)->done[t] += t + 1; }

static int64_t total(const tally *t)
{
    int64_t sum = 0;
    for (int i = 0; i < TASKS; i++) sum += t->done[i];
    return sum;
}

static void jobs(int tasks, int threads)
{
    tally t = {{0}};
    pb_run(count, &t, tasks, threads);
    check(total(&t) == (int64_t)tasks * (tasks + 1) / 2, "pb_run");
}

/* Operations that depend on the one before, as a program's do. */
typedef struct {
    int64_t step[TASKS], before;
} chain;

static void advance(void *arg, int64_t t) { ((chain *)arg)->step[t] += ((chain *)arg)->before; }

static void lead(void *arg, pb_team *team)
{
    chain *c = arg;
    for (int i = 0; i < 8; i++) {
        c->before = i == 0 ? 1 : c->step[(i * 7) % TASKS];
        pb_share(team, advance, c, TASKS);
    }
}

static void programs(int threads)
{
    chain c = {{0}, 0};
    pb_lead(lead, &c, threads);
    for (int i = 0; i < TASKS; i++) check(c.step[i] == 128, "pb_lead"); /* 1, then doubled seven times */
}

static void products(unsigned seed, int threads)
{
    static _Thread_local int64_t indptr[ROWS + 1], indices[ROWS * PER_ROW];
    static _Thread_local float data[ROWS * PER_ROW], x[COLS * N], y[ROWS * N];
    for (int i = 0; i < ROWS * PER_ROW; i++) indices[i] = (int64_t)((seed + (unsigned)i * 37u) % COLS), data[i] = 1;
    for (int r = 0; r <= ROWS; r++) indptr[r] = r * PER_ROW;
    for (int c = 0; c < COLS; c++)
        for (int j = 0; j < N; j++) x[c * N + j] = (float)(c % 5);
    const pb_csr m = {.indptr = indptr, .indices = indices, .indptr_wide = 1, .indices_wide = 1, .data = data, .x = x,
                      .y = y, .rows = ROWS, .cols = COLS, .nnz = ROWS * PER_ROW, .n = N, .threads = threads};
    char why[160] = "";
    check(pb_csr_product(&m, pb_isa_at((int)(seed % 2)) ? pb_isa_at((int)(seed % 2)) : pb_isa_best(), why, sizeof why) == 0, why);
    for (int r = 0; r < ROWS; r++) {
        float want = 0;
        for (int k = 0; k < PER_ROW; k++) want += (float)(indices[r * PER_ROW + k] % 5);
        for (int j = 0; j < N; j++) check(y[r * N + j] == want, "pb_csr_product");
    }
}

static void *caller(void *arg)
{
    const unsigned me = *(const unsigned *)arg;
    for (int i = 0; i < rounds; i++) {
        const int threads = 1 + (int)((me + (unsigned)i) % 4);
        jobs(i % TASKS, threads);
        programs(threads);
        if (i % 8 == 0) products(me + (unsigned)i, threads);
    }
    return NULL;
}

static void at_once(void)
{
    pthread_t id[CALLERS];
    unsigned who[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++) {
        who[i] = i;
        if (pthread_create(&id[i], NULL, caller, &who[i])) exit(3);
    }
    for (int i = 0; i < CALLERS; i++) pthread_join(id[i], NULL);
}

static int unlocked;

static void *racing(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100000; i++) unlocked++;
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--racing") == 0) {
        pthread_t a, b;
        if (pthread_create(&a, NULL, racing, NULL) || pthread_create(&b, NULL, racing, NULL)) return 3;
        pthread_join(a, NULL), pthread_join(b, NULL);
        printf("%d\n", unlocked);
        return 0;
    }
    if (argc > 1) rounds = atoi(argv[1]);
    pb_pool_init();
    at_once();
    /* A child of a process whose helpers sleep or spin has none of them, and must find its own. */
    const pid_t child = fork();
    if (child == 0) {
        rounds = rounds / 10 + 1;
        caller(&(unsigned){1});
        _exit(atomic_load(&wrong) ? 1 : 0);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status) check(0, "in a forked child");
    at_once();
    printf("threads: %d callers, %d rounds, %d wrong\n", CALLERS, rounds, atomic_load(&wrong));
    return atomic_load(&wrong) != 0;
}

/* A small thread pool, one for the process: the caller works too, helpers sleep when there is nothing to do.
 *
 * Several callers may run jobs at once: each job is on its caller's stack and in one list; helpers take tickets from the
 * first job that still wants a helper. No second OpenMP runtime: torch's own threads are idle while a job runs. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine.h"

#define MAX_WORKERS 256
#define SPIN 4000 /* looks before a helper sleeps: some tens of microseconds, the gap between two layers */

typedef struct job {
    pb_task fn;
    void *ctx;
    int64_t tasks;
    atomic_llong next;
    atomic_int busy; /* helpers inside */
    int wanted;      /* helpers it still takes; under the lock */
    struct job *link;
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static job *jobs;
static int workers, sleeping;
static atomic_uint posted; /* grows with every job, so that a spinning helper sees one without the lock */
static pthread_key_t work_key, arena_key;

static void pause_(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Subnormal numbers cost up to 50 times a normal one, and a pruned network makes them: flush them while working. */
static uint64_t flush_on(void)
{
#if defined(__x86_64__)
    const unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);
    return old;
#elif defined(__aarch64__)
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | (1u << 24)));
    return old;
#else
    return 0;
#endif
}

static void flush_restore(uint64_t old)
{
#if defined(__x86_64__)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}

static void work(job *j)
{
    int64_t t;
    while ((t = atomic_fetch_add(&j->next, 1)) < j->tasks) j->fn(j->ctx, t);
}

static void *helper(void *arg)
{
    (void)arg;
    flush_on();
    unsigned seen = atomic_load(&posted);
    pthread_mutex_lock(&lock);
    for (;;) {
        job *j = jobs;
        while (j && j->wanted == 0) j = j->link;
        if (j) {
            j->wanted--;
            atomic_fetch_add(&j->busy, 1);
            pthread_mutex_unlock(&lock);
            work(j);
            pthread_mutex_lock(&lock);
            if (atomic_fetch_sub(&j->busy, 1) == 1) pthread_cond_broadcast(&done);
            continue;
        }
        seen = atomic_load(&posted);
        pthread_mutex_unlock(&lock);
        for (int i = 0; i < SPIN && atomic_load_explicit(&posted, memory_order_relaxed) == seen; i++) pause_();
        pthread_mutex_lock(&lock);
        if (atomic_load(&posted) == seen) {
            sleeping++;
            pthread_cond_wait(&wake, &lock);
            sleeping--;
        }
    }
    return NULL;
}

static void grow(int want) /* under the lock */
{
    pthread_attr_t attr;
    if (pthread_attr_init(&attr)) return;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    while (workers < want && workers < MAX_WORKERS) {
        pthread_t id;
        if (pthread_create(&id, &attr, helper, NULL)) break; /* fewer helpers: slower, never wrong */
        workers++;
    }
    pthread_attr_destroy(&attr);
}

static void post(job *j, int helpers)
{
    pthread_mutex_lock(&lock);
    if (workers < helpers) grow(helpers);
    j->wanted = helpers;
    j->link = jobs;
    jobs = j;
    atomic_fetch_add(&posted, 1);
    if (sleeping) helpers > 1 ? pthread_cond_broadcast(&wake) : pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

/* No helper comes any more, and those inside have left. */
static void retire(job *j)
{
    pthread_mutex_lock(&lock);
    for (job **p = &jobs; *p; p = &(*p)->link)
        if (*p == j) {
            *p = j->link;
            break;
        }
    if (atomic_load(&j->busy)) {
        pthread_mutex_unlock(&lock);
        for (int i = 0; i < SPIN && atomic_load_explicit(&j->busy, memory_order_relaxed); i++) pause_();
        pthread_mutex_lock(&lock); /* also: the helper that left last must be out of the lock before j goes */
        while (atomic_load(&j->busy)) pthread_cond_wait(&done, &lock);
    }
    pthread_mutex_unlock(&lock);
}

/* fn(ctx, 0 .. tasks - 1), each once, on up to `threads` threads, this one included; returns when all are done. */
void pb_run(pb_task fn, void *ctx, int64_t tasks, int threads)
{
    const uint64_t old = flush_on();
    job j = {.fn = fn, .ctx = ctx, .tasks = tasks};
    const int helpers = threads > tasks ? (int)tasks - 1 : threads - 1;
    if (helpers > 0) post(&j, helpers);
    work(&j);
    if (helpers > 0) retire(&j);
    flush_restore(old);
}

/* A team: its leader goes through a program, the members help with each operation. Every member has a share of the
 * operation's tasks, the same share each time: tiles of one part of a map, which are then in its own caches from the
 * operation before. Who is done takes from the others' shares, from their far ends. */
#define MAX_TEAM 64

typedef struct {
    _Alignas(64) atomic_ullong left; /* next task << 32 | end of the share */
    atomic_llong done;               /* tasks that this member has done, ever */
} member_share;

struct pb_team {
    int threads;
    atomic_int over;                  /* the leader is done */
    int64_t given;                    /* tasks given out, ever */
    _Alignas(64) atomic_uint opened;  /* grows with every operation */
    _Atomic(pb_task) task;            /* of the operation */
    _Atomic(void *) ctx;
    member_share share[MAX_TEAM];
};

static void wait_a_little(int *spins)
{
    if (++*spins < SPIN) pause_();
    else sched_yield(); /* whoever is waited for may need this core */
}

/* Does tasks of a share until it is empty. Whoever takes a task knows that its operation can't end before the task is
 * done, so the function and context read after that belong to it. */
static void empty_share(pb_team *t, int me, int whose)
{
    atomic_ullong *left = &t->share[whose].left;
    unsigned long long v = atomic_load(left);
    for (;;) {
        const uint32_t next = (uint32_t)(v >> 32), end = (uint32_t)v;
        if (next >= end) return;
        const unsigned long long rest = me == whose ? v + (1ull << 32) : v - 1;
        if (!atomic_compare_exchange_weak(left, &v, rest)) continue;
        atomic_load(&t->task)(atomic_load(&t->ctx), me == whose ? next : end - 1);
        atomic_fetch_add(&t->share[me].done, 1);
        v = atomic_load(left);
    }
}

static void help(pb_team *t, int me)
{
    for (int i = 0; i < t->threads; i++) empty_share(t, me, (me + i) % t->threads);
}

static void member(void *arg, int64_t id)
{
    pb_team *t = arg;
    unsigned seen = 0;
    for (int spins = 0; !atomic_load(&t->over);) {
        const unsigned opened = atomic_load(&t->opened);
        if (opened == seen) {
            wait_a_little(&spins);
            continue;
        }
        seen = opened, spins = 0;
        help(t, (int)id + 1);
    }
}

/* fn(ctx, team) on this thread, with helpers for what it shares. */
void pb_lead(pb_leader fn, void *ctx, int threads)
{
    const uint64_t old = flush_on();
    if (threads <= 1) {
        fn(ctx, NULL);
    } else {
        pb_team t = {.threads = threads > MAX_TEAM ? MAX_TEAM : threads};
        job j = {.fn = member, .ctx = &t, .tasks = t.threads - 1};
        post(&j, t.threads - 1);
        fn(ctx, &t);
        atomic_store(&t.over, 1);
        retire(&j);
    }
    flush_restore(old);
}

/* fn(ctx, 0 .. tasks - 1), each once, by the team (alone without one). */
void pb_share(pb_team *t, pb_task fn, void *ctx, int64_t tasks)
{
    if (!t || tasks <= 1 || tasks > INT32_MAX) {
        for (int64_t i = 0; i < tasks; i++) fn(ctx, i);
        return;
    }
    /* every share is empty now: first what a task stands for, then the tasks */
    atomic_store(&t->task, fn);
    atomic_store(&t->ctx, ctx);
    for (int i = 0; i < t->threads; i++) {
        const unsigned long long lo = (unsigned long long)(tasks * i / t->threads), hi = (unsigned long long)(tasks * (i + 1) / t->threads);
        atomic_store(&t->share[i].left, lo << 32 | hi);
    }
    atomic_fetch_add(&t->opened, 1);
    t->given += tasks;
    help(t, 0);
    for (int spins = 0;;) {
        int64_t done = 0;
        for (int i = 0; i < t->threads; i++) done += atomic_load(&t->share[i].done);
        if (done == t->given) return;
        wait_a_little(&spins);
    }
}

int pb_cores(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int)n;
}

typedef struct {
    void *p;
    size_t bytes;
} space;

static void space_free(void *arg)
{
    free(((space *)arg)->p);
    free(arg);
}

/* Large spaces start on a huge page's border and ask for huge pages: a tile touches dozens of small ones. */
static void *space_of(pthread_key_t key, size_t bytes)
{
    space *s = pthread_getspecific(key);
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s) return NULL;
        if (pthread_setspecific(key, s)) {
            free(s);
            return NULL;
        }
    }
    if (s->bytes < bytes) {
        const size_t huge = (size_t)2 << 20, border = bytes >= huge ? huge : 64;
        void *p = NULL;
        free(s->p);
        s->p = NULL, s->bytes = 0;
        if (bytes > SIZE_MAX - border || posix_memalign(&p, border, bytes)) return NULL;
#if defined(MADV_HUGEPAGE)
        if (border == huge) (void)madvise(p, bytes / huge * huge, MADV_HUGEPAGE);
#endif
        s->p = p;
        s->bytes = bytes;
    }
    return s->p;
}

void *pb_workspace(size_t bytes) { return space_of(work_key, bytes); }
void *pb_arena(size_t bytes) { return space_of(arena_key, bytes); }

/* A forked child has one thread, and a lock that may have been held by one it lost. */
static void after_fork(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&wake, NULL);
    pthread_cond_init(&done, NULL);
    jobs = NULL;
    workers = sleeping = 0;
}

void pb_pool_init(void)
{
    static int ready;
    if (ready) return;
    ready = 1;
    pthread_key_create(&work_key, space_free);
    pthread_key_create(&arena_key, space_free);
    pthread_atfork(NULL, NULL, after_fork);
}

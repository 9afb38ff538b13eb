/* Runs a compiled network: phase by phase, a phase group by group, so that the values of a group stay in the caches. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "program.h"

#define SLACK 64 /* floats before and after the shared part and each slot: halos read a lane vector beside a value */

int pb_program_check(const pb_program *p, char *why, size_t room)
{
    if (p->chunk < 1 || p->chunk > INT32_MAX || p->shared < 0 || p->shared > PB_FAR || p->slot < 0 || p->slot > PB_FAR)
        return snprintf(why, room, "a size is out of range"), -1;
    for (int64_t i = 0; i < p->values; i++) {
        const pb_value *v = &p->value[i];
        const int64_t all = v->local ? p->slot : p->shared;
        int64_t end = 0;
        int bad = v->kind < 0 || v->kind >= PB_VALUE_KINDS || v->chans < 1 || v->groups < 1 || v->group < 0 || v->off < 0
                  || v->chans > INT32_MAX || v->rows < 1 || v->rows > INT32_MAX || v->groups > 4096 || v->cols < 1
                  || v->cols > INT32_MAX || v->row < 0 || v->row > INT32_MAX || v->group > PB_FAR || v->off > PB_FAR
                  || v->chans * v->cols > PB_FAR || (v->rows - 1) * v->row > PB_FAR;
        if (!bad && v->kind == PB_VALUE_VECTOR) end = v->off + (v->groups - 1) * v->group + v->chans;
        if (!bad && v->kind == PB_VALUE_LANES) {
            bad = v->chans * v->cols > v->row && v->rows > 1;
            end = v->off + (v->groups - 1) * v->group + ((v->rows - 1) * v->row + v->chans * v->cols) * PB_LANES;
        }
        if (!bad && v->kind == PB_VALUE_INPUT) bad = v->off >= p->inputs;
        if (!bad && v->kind == PB_VALUE_OUTPUT) bad = v->off >= p->outputs;
        if (bad || end > all || (v->local && v->groups > 1))
            return snprintf(why, room, "value %lld doesn't fit into the arena", (long long)i), -1;
    }
    int64_t at = 0;
    for (int64_t f = 0; f < p->phases; f++) {
        const pb_phase *ph = &p->phase[f];
        if (ph->first != at || ph->end < ph->first || ph->end > p->ops || ph->groups < 1 || ph->groups > 4096)
            return snprintf(why, room, "phase %lld is wrong", (long long)f), -1;
        for (; at < ph->end; at++) {
            if (pb_op_check(p, &p->op[at], ph->groups, why, room)) return -1;
            const int64_t used[4] = {p->op[at].in, p->op[at].out,
                                     p->op[at].kind <= PB_OP_DOT ? p->op[at].u.conv.add : -1,
                                     p->op[at].kind == PB_OP_MAP ? p->op[at].u.map.in2 : -1};
            for (int i = 0; i < 4; i++) /* a move names its groups itself, and was checked with them */
                if (used[i] >= 0 && p->op[at].kind != PB_OP_MOVE && !p->value[used[i]].local
                    && p->value[used[i]].groups < ph->groups)
                    return snprintf(why, room, "operation %lld: a value has too few groups", (long long)at), -1;
        }
    }
    return at == p->ops ? 0 : (snprintf(why, room, "an operation is in no phase"), -1);
}

static void do_op(const pb_op *op, const pb_run_ctx *c)
{
    switch (op->kind) {
    case PB_OP_CONV: pb_do_conv(op, c); break;
    case PB_OP_DOT: pb_do_dot(op, c); break;
    case PB_OP_HALO: pb_do_halo(op, c); break;
    case PB_OP_MOVE: pb_do_move(op, c); break;
    case PB_OP_WINDOW: pb_do_window(op, c); break;
    case PB_OP_SUM: pb_do_sum(op, c); break;
    default: pb_do_map(op, c); break;
    }
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void do_group(const pb_phase *ph, const pb_run_ctx *c, double *ns)
{
    for (int64_t i = ph->first; i < ph->end; i++) {
        const double t = ns ? now_ns() : 0;
        do_op(&c->p->op[i], c);
        if (ns) ns[i] += now_ns() - t;
    }
}

typedef struct {
    const pb_phase *ph;
    const pb_run_ctx *c;
    int64_t slots;
    atomic_int *taken;
} groups_ctx;

/* A group on one thread, in whichever slot is free: there is one for every thread. */
static void group_task(void *arg, int64_t g)
{
    groups_ctx *a = arg;
    pb_run_ctx c = *a->c;
    int64_t s = 0;
    while (atomic_exchange(&a->taken[s], 1)) s = (s + 1) % a->slots;
    c.slot += s * (c.p->slot + 2 * SLACK);
    c.g = g;
    c.team = NULL;
    c.threads = 1;
    do_group(a->ph, &c, NULL);
    atomic_store(&a->taken[s], 0);
}

typedef struct {
    const pb_program *p;
    const float *const *in;
    float *const *out;
    float *arena;
    double *ns;
    int64_t chunks, slots, shared;
    int threads;
} whole;

static void lead(void *arg, pb_team *team)
{
    const whole *w = arg;
    const pb_program *p = w->p;
    atomic_int taken[256] = {0};
    const float *ins[16];
    float *outs[16];
    pb_run_ctx c = {.p = p, .shared = w->arena + SLACK, .slot = w->arena + w->shared + SLACK, .in = ins, .out = outs,
                    .team = team, .threads = w->threads};
    for (int64_t k = 0; k < w->chunks; k++) {
        for (int64_t i = 0; i < p->values; i++) {
            const pb_value *v = &p->value[i];
            if (v->kind == PB_VALUE_INPUT) ins[v->off] = w->in[v->off] + k * p->chunk * v->rows;
            if (v->kind == PB_VALUE_OUTPUT) outs[v->off] = w->out[v->off] + k * p->chunk * v->rows;
        }
        for (int64_t f = 0; f < p->phases; f++) {
            const pb_phase *ph = &p->phase[f];
            if (w->slots > 1 && ph->groups >= w->threads) {
                groups_ctx a = {ph, &c, w->slots, taken};
                pb_share(team, group_task, &a, ph->groups);
            } else {
                for (c.g = 0; c.g < ph->groups; c.g++) do_group(ph, &c, w->ns);
            }
        }
    }
}

/* The arena is the calling thread's, grown as needed and kept for its next run. */
int pb_program_run(const pb_program *p, const float *const *in, float *const *out, int64_t chunks, int threads, double *ns)
{
    if (threads > 256) threads = 256;
    whole w = {.p = p, .in = in, .out = out, .ns = ns, .chunks = chunks, .slots = 1, .shared = p->shared + 2 * SLACK,
               .threads = threads};
    for (int64_t f = 0; !ns && f < p->phases; f++)
        if (p->phase[f].groups >= threads && w.slots < threads) w.slots = threads;
    w.arena = pb_arena((size_t)(w.shared + w.slots * (p->slot + 2 * SLACK)) * sizeof(float));
    if (!w.arena) return -1;
    pb_lead(lead, &w, threads);
    return 0;
}

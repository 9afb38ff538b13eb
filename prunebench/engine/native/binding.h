/* What the binding's files share. */
#ifndef PB_BINDING_H
#define PB_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "program.h"

extern const pb_isa *pb_current;

/* Takes a buffer of `ndim` dimensions; kind 'f' float32, 'i' int32 or int64, 'j' 32-bit, 'l' int64. */
int pb_take(PyObject *o, Py_buffer *b, const char *name, char kind, int ndim, int write, int contiguous);

PyObject *pb_py_pack(PyObject *self, PyObject *args);
PyObject *pb_py_info(PyObject *self, PyObject *o);
PyObject *pb_py_unpack(PyObject *self, PyObject *args);
PyObject *pb_py_offsets(PyObject *self, PyObject *args);
PyObject *pb_py_program(PyObject *self, PyObject *args);
PyObject *pb_py_run(PyObject *self, PyObject *const *args, Py_ssize_t n);

typedef struct {
    pb_weights *w;
    int claimed; /* w->col has been turned into w->geo's offsets, and somebody uses them */
} pb_weights_box;

typedef struct {
    uint16_t *col;
    pb_geometry geo;
    int owned;         /* else col is the weights' own */
    PyObject *weights; /* their capsule */
} pb_offsets_box;

#define PB_WEIGHTS "prunebench.weights"
#define PB_OFFSETS "prunebench.offsets"
#define PB_PROGRAM "prunebench.program"

#endif

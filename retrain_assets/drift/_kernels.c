/* Two passes over a column: count values per cell of a monotone grid, then pick out a few cells.

   Plain C99 without Python headers, loaded through ctypes: one build serves every Python version,
   and where it is absent `kernels.py` does the same in numpy. A cell index is a monotone function
   of the value, computed without a search: t = |value - origin| / scale, and the exponent and
   leading mantissa bits of 1 + t, which is linear for t < 1 and logarithmic beyond. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#define BLOCK 1024
#define LANES 8

typedef struct {
    double origin;        /* float columns: subtracted from each value */
    int64_t int_origin;   /* integer columns: likewise, without rounding */
    double inverse_scale; /* a power of two */
    int64_t bits;         /* mantissa bits of a cell */
    int64_t half;         /* cells on either side of the origin */
    int64_t n_atoms;
    const double *atoms;        /* sorted; as they are, since differences may round together */
    const int64_t *int_atoms;   /* likewise, of an integer column */
    const int32_t *atom_cells;  /* cell of each atom */
    const int32_t *first_atom;  /* per cell: its first atom, -1 without one */
} Grid;

typedef struct {
    int64_t nan, negative_infinite, positive_infinite, null;
    double sum, sum_squares;    /* of (value - origin), of its square over scale squared */
    double low, high;           /* finite extremes of a float column */
    int64_t int_low, int_high;  /* extremes of an integer column */
} Moments;

/* cells [0, 2 half) | null or NaN | -inf | +inf | per atom: below it in its cell, equal to it */
static inline int64_t trash(const Grid *g) { return 2 * g->half; }

static inline int32_t cell_of(double y, const Grid *g) {
    double a = fabs(y * g->inverse_scale) + 1.0;
    int64_t u;
    memcpy(&u, &a, 8);
    int64_t i = (u >> (52 - g->bits)) - ((int64_t)1023 << g->bits);
    i = i < g->half ? i : g->half - 1;
    return (int32_t)(y < 0 ? g->half - 1 - i : g->half + i);
}

#define ENTRY_OF(NAME, TYPE, ATOMS)                                                               \
static inline int32_t NAME(int32_t cell, TYPE x, const Grid *g) {                                 \
    int32_t j = g->first_atom[cell];                                                              \
    if (j < 0) return cell;                                                                       \
    for (; j < g->n_atoms && g->atom_cells[j] == cell; j++)                                       \
        if (x <= g->ATOMS[j]) return (int32_t)(trash(g) + 3 + 2 * j + (x == g->ATOMS[j]));        \
    return cell;                                                                                  \
}
ENTRY_OF(entry_of_float, double, atoms)
ENTRY_OF(entry_of_int, int64_t, int_atoms)

static void expand_bits(const uint8_t *bitmap, int64_t offset, int64_t n, uint8_t *valid) {
    for (int64_t i = 0; i < n; i++) {
        int64_t k = offset + i;
        valid[i] = (bitmap[k >> 3] >> (k & 7)) & 1;
    }
}

/* Integers less the origin, rounded once: each half and its product with 2^32 is exact. */
static inline double int_difference(int64_t x, int64_t origin) {
    double upper = (double)((x >> 32) - (origin >> 32)) * 4294967296.0;
    return upper + (double)((x & 0xffffffff) - (origin & 0xffffffff));
}
#define DIFFERENCE_FLOAT(x, g) ((double)(x) - (g)->origin)
#define DIFFERENCE_INT(x, g) int_difference((x), (g)->int_origin)
#define DIFFERENCE_SHORT(x, g) ((double)((int64_t)(x) - (g)->int_origin))

#define COUNT_PASS(NAME, TYPE, DIFFERENCE, IS_FLOAT, LARGEST, SMALLEST, ENTRY)                    \
CLONES static void NAME##_block(const TYPE *x, const uint8_t *valid, int64_t n, const Grid *g,    \
                                int32_t *cells, double *ys) {                                     \
    const int32_t out = (int32_t)trash(g);                                                        \
    for (int64_t i = 0; i < n; i++) {                                                             \
        double y = DIFFERENCE(x[i], g);                                                           \
        int32_t cell = cell_of(y, g);                                                             \
        if (IS_FLOAT) {                                                                           \
            double v = (double)x[i];                                                              \
            cell = v > DBL_MAX ? out + 2 : cell;                                                  \
            cell = v < -DBL_MAX ? out + 1 : cell;                                                 \
            cell = v != v ? out : cell;                                                           \
        }                                                                                         \
        ys[i] = y;                                                                                \
        cells[i] = cell;                                                                          \
    }                                                                                             \
    if (valid)                                                                                    \
        for (int64_t i = 0; i < n; i++) cells[i] = valid[i] ? cells[i] : out;                     \
}                                                                                                 \
CLONES static void NAME##_moments(const TYPE *x, const int32_t *cells, const double *ys,          \
                                  int64_t n, const Grid *g, Moments *m) {                         \
    const int32_t out = (int32_t)trash(g);                                                        \
    double s[LANES] = {0}, q[LANES] = {0};                                                        \
    TYPE lo[LANES], hi[LANES];                                                                    \
    for (int k = 0; k < LANES; k++) {                                                             \
        lo[k] = LARGEST;                                                                          \
        hi[k] = SMALLEST;                                                                         \
    }                                                                                             \
    int64_t i = 0;                                                                                \
    for (; i + LANES <= n; i += LANES)                                                            \
        for (int k = 0; k < LANES; k++) {                                                         \
            int use = cells[i + k] < out;                                                         \
            double y = use ? ys[i + k] : 0.0, t = y * g->inverse_scale;                           \
            TYPE a = use ? x[i + k] : lo[k], b = use ? x[i + k] : hi[k];                          \
            s[k] += y;                                                                            \
            q[k] += t * t;                                                                        \
            lo[k] = a < lo[k] ? a : lo[k];                                                        \
            hi[k] = b > hi[k] ? b : hi[k];                                                        \
        }                                                                                         \
    for (; i < n; i++)                                                                            \
        if (cells[i] < out) {                                                                     \
            double t = ys[i] * g->inverse_scale;                                                  \
            s[0] += ys[i];                                                                        \
            q[0] += t * t;                                                                        \
            lo[0] = x[i] < lo[0] ? x[i] : lo[0];                                                  \
            hi[0] = x[i] > hi[0] ? x[i] : hi[0];                                                  \
        }                                                                                         \
    double sum = 0, squares = 0;                                                                  \
    for (int k = 0; k < LANES; k++) {                                                             \
        sum += s[k];                                                                              \
        squares += q[k];                                                                          \
        if (lo[k] > hi[k]) continue; /* nothing but nulls in this lane */                         \
        if (IS_FLOAT) {                                                                           \
            m->low = (double)lo[k] < m->low ? (double)lo[k] : m->low;                             \
            m->high = (double)hi[k] > m->high ? (double)hi[k] : m->high;                          \
        } else {                                                                                  \
            m->int_low = (int64_t)lo[k] < m->int_low ? (int64_t)lo[k] : m->int_low;               \
            m->int_high = (int64_t)hi[k] > m->int_high ? (int64_t)hi[k] : m->int_high;            \
        }                                                                                         \
    }                                                                                             \
    m->sum += sum;                                                                                \
    m->sum_squares += squares;                                                                    \
}                                                                                                 \
void count_##NAME(const TYPE *x, const uint8_t *bitmap, int64_t offset, int64_t n, const Grid *g, \
                  uint32_t *counts, double *sums, int64_t sum_shift, Moments *m) {                \
    int32_t cells[BLOCK];                                                                         \
    double ys[BLOCK];                                                                             \
    uint8_t valid[BLOCK];                                                                         \
    const int32_t out = (int32_t)trash(g);                                                        \
    for (int64_t at = 0; at < n; at += BLOCK) {                                                   \
        int64_t size = n - at < BLOCK ? n - at : BLOCK;                                           \
        if (bitmap) expand_bits(bitmap, offset + at, size, valid);                                \
        NAME##_block(x + at, bitmap ? valid : 0, size, g, cells, ys);                             \
        NAME##_moments(x + at, cells, ys, size, g, m);                                            \
        if (bitmap)                                                                               \
            for (int64_t i = 0; i < size; i++) m->null += !valid[i];                              \
        if (sums)                                                                                 \
            for (int64_t i = 0; i < size; i++)                                                    \
                if (cells[i] < out) sums[cells[i] >> sum_shift] += ys[i];                         \
        if (g->n_atoms)                                                                           \
            for (int64_t i = 0; i < size; i++) counts[ENTRY(cells[i], x[at + i], g)]++;           \
        else                                                                                      \
            for (int64_t i = 0; i < size; i++) counts[cells[i]]++;                                \
    }                                                                                             \
}                                                                                                 \
/* actions per entry: bit 0 gather the value, else +1/-1 of bit 1/2 the sign of its weight in W1 */ \
int64_t gather_##NAME(const TYPE *x, const uint8_t *bitmap, int64_t offset, int64_t n,            \
                      const Grid *g, const int8_t *actions, TYPE *gathered, double *signed_sum) { \
    int32_t cells[BLOCK];                                                                         \
    double ys[BLOCK];                                                                             \
    uint8_t valid[BLOCK];                                                                         \
    static const double weight[8] = {0, 0, 1, 0, -1, 0, 0, 0};                                    \
    int64_t found = 0;                                                                            \
    double total = 0;                                                                             \
    for (int64_t at = 0; at < n; at += BLOCK) {                                                   \
        int64_t size = n - at < BLOCK ? n - at : BLOCK;                                           \
        if (bitmap) expand_bits(bitmap, offset + at, size, valid);                                \
        NAME##_block(x + at, bitmap ? valid : 0, size, g, cells, ys);                             \
        if (g->n_atoms)                                                                           \
            for (int64_t i = 0; i < size; i++) cells[i] = ENTRY(cells[i], x[at + i], g);          \
        double part[4] = {0};                                                                     \
        for (int64_t i = 0; i < size; i++) {                                                      \
            int8_t action = actions[cells[i]];                                                    \
            gathered[found] = x[at + i];                                                          \
            found += action & 1;                                                                  \
            /* Chosen by index, not by a branch that the processor would mispredict. */           \
            const double summand[2] = {0.0, ys[i]}; /* not 0 * ys[i], which may be infinite */     \
            part[i & 3] += weight[action & 7] * summand[(action & 6) != 0];                       \
        }                                                                                         \
        total += (part[0] + part[1]) + (part[2] + part[3]);                                       \
    }                                                                                             \
    *signed_sum += total;                                                                         \
    return found;                                                                                 \
}

#define INSIDE_PASS(NAME, TYPE, DIFFERENCE)                                                       \
/* Sorted values of both sides, block by block: the largest |F_ref - F_cur| and the area under it. */ \
void inside_##NAME(const TYPE *ref, const TYPE *cur, int64_t n_blocks, const int64_t *in_ref,     \
                   const int64_t *in_cur, const double *level, const double *finite_level,        \
                   const double *begins, const double *ends, const double *sizes, const Grid *g,  \
                   double *result) {                                                              \
    double largest = 0, area = 0;                                                                 \
    const double n = sizes[0], m = sizes[1], n_finite = sizes[2], m_finite = sizes[3];            \
    for (int64_t k = 0; k < n_blocks; k++) {                                                      \
        int64_t i = 0, j = 0, a = in_ref[k], b = in_cur[k];                                       \
        double before = begins[k], d = finite_level[k];                                           \
        while (i < a || j < b) {                                                                  \
            TYPE v = j >= b || (i < a && ref[i] <= cur[j]) ? ref[i] : cur[j];                     \
            double y = DIFFERENCE(v, g);                                                          \
            if (y > before) area += fabs(d) * (y - before);                                       \
            while (i < a && ref[i] == v) i++;                                                     \
            while (j < b && cur[j] == v) j++;                                                     \
            double here = fabs(level[k] + (i / n - j / m));                                       \
            if (here > largest) largest = here;                                                   \
            d = finite_level[k] + (i / n_finite - j / m_finite);                                  \
            before = y;                                                                           \
        }                                                                                         \
        if (ends[k] > before) area += fabs(d) * (ends[k] - before);                               \
        ref += a;                                                                                 \
        cur += b;                                                                                 \
    }                                                                                             \
    result[0] = largest;                                                                          \
    result[1] = area;                                                                             \
}

INSIDE_PASS(f64, double, DIFFERENCE_FLOAT)
INSIDE_PASS(f32, float, DIFFERENCE_FLOAT)
INSIDE_PASS(i64, int64_t, DIFFERENCE_INT)
INSIDE_PASS(i32, int32_t, DIFFERENCE_SHORT)
COUNT_PASS(f64, double, DIFFERENCE_FLOAT, 1, INFINITY, -INFINITY, entry_of_float)
COUNT_PASS(f32, float, DIFFERENCE_FLOAT, 1, INFINITY, -INFINITY, entry_of_float)
COUNT_PASS(i64, int64_t, DIFFERENCE_INT, 0, INT64_MAX, INT64_MIN, entry_of_int)
COUNT_PASS(i32, int32_t, DIFFERENCE_SHORT, 0, INT32_MAX, INT32_MIN, entry_of_int)

void count_codes(const int32_t *codes, const uint8_t *bitmap, int64_t offset, int64_t n,
                 int64_t *counts) {
    if (!bitmap) {
        for (int64_t i = 0; i < n; i++) counts[codes[i]]++;
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t k = offset + i;
        if ((bitmap[k >> 3] >> (k & 7)) & 1) counts[codes[i]]++;
    }
}

/* Rows by length in characters (the last bucket is open), whitespace-separated tokens by CRC-32. */
void count_text(const int64_t *offsets, const uint8_t *data, int64_t n, const int64_t *weights,
                int64_t *lengths, int64_t n_lengths, int64_t *tokens, int64_t n_tokens) {
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0xEDB88320u : c >> 1;
        table[i] = c;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!weights[i]) continue;
        int64_t length = 0, inside = 0;
        uint32_t crc = 0xffffffffu;
        for (int64_t k = offsets[i]; k <= offsets[i + 1]; k++) {
            uint8_t byte = k < offsets[i + 1] ? data[k] : ' ';
            if (k < offsets[i + 1]) length += (byte & 0xC0) != 0x80;
            if (byte == ' ' || (byte >= 9 && byte <= 13)) {
                if (inside) tokens[(crc ^ 0xffffffffu) % (uint32_t)n_tokens] += weights[i];
                inside = 0;
                crc = 0xffffffffu;
            } else {
                inside = 1;
                crc = table[(crc ^ byte) & 0xff] ^ (crc >> 8);
            }
        }
        lengths[length < n_lengths ? length : n_lengths - 1] += weights[i];
    }
}

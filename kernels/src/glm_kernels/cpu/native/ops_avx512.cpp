#define GLM_ISA avx512
#include "lanes_avx512.h"
#include "attention.h"
#include "gates.h"
#include "norms.h"
#include "norms_backward.h"
#include "rotary.h"

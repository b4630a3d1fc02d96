#define GLM_ISA avx2
#include "lanes_avx2.h"
#include "attention.h"
#include "gates.h"
#include "norms.h"
#include "norms_backward.h"
#include "rotary.h"

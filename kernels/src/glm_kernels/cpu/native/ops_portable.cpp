#define GLM_ISA portable
#include "lanes_portable.h"
#include "attention.h"
#include "gates.h"
#include "norms.h"
#include "norms_backward.h"
#include "rotary.h"

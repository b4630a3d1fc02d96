#define GLM_ISA avx512
#include "lanes_avx512.h"
#include "weight_only.h"
#include "pack.h"
#include "dequantize.h"
#include "decode.h"

#define GLM_ISA avx2
#include "lanes_avx2.h"
#include "weight_only.h"
#include "pack.h"
#include "dequantize.h"
#include "decode.h"

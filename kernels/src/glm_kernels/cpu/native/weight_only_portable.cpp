#define GLM_ISA portable
#include "lanes_portable.h"
#include "weight_only.h"
#include "pack.h"
#include "dequantize.h"
#include "decode.h"

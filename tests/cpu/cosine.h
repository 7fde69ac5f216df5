// Test cases of the cosine kernel, whose loss has one channel, unlike those of cases.h.
#pragma once

#include "cases.h"

// Compares random shapes, layouts and options with the definition, (x/|x| - y/|y|)^2/4.
void cosine_cases(const Arguments& arguments);

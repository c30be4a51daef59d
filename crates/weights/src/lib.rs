//! Safetensors views over mapped bytes, quantisation formats, the quantiser and writers.

"""Transformers built from operations only: checkpoint to integer model, and the integer encoder.

checkpoint      a BERT folder in Hugging Face layout, checked
float_encoder   the float32 model that the integers stand for
calibrate       the ranges that its activations take on text
convert         float tensors and ranges -> integer tensors and parameters
layout          what an integer model holds;  file: the same on disk
encoder         ids -> pooled integers, by prepared operations
text            text -> ids
evaluate        float against integer on sentence pairs
"""

"""Transformers built from operations only: checkpoint to integer model, and the integer models that run.

The encoder (BERT), whose grids are calibrated on text:

checkpoint      a BERT folder in Hugging Face layout, checked
float_encoder   the float32 model that the integers stand for
calibrate       the ranges that its activations take on text
convert         float tensors and ranges -> integer tensors and parameters
layout          what an integer model holds;  file: the same on disk
encoder         ids -> pooled integers, by prepared operations
text            text -> ids
evaluate        float against integer on sentence pairs

The Integer Transformer with propagated scales (translation, language model):

architecture, vocabulary, corpora   shape, tokens and texts of a model
transformer                         what the float and the integer model share: layers, cache, batches
float_transformer                   the float32 model in NumPy
integer_transformer                 ids -> logits, by prepared operations
transformer_checkpoint, _convert, _layout, _file, _evaluate, trace   as above
generation, scoring                 greedy, beams, streams; perplexity, KL, BLEU

container       what the files of both kinds have in common
"""

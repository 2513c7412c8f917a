"""Replay: what a retraining policy would have done on a model's own history.

    history    a snapshot of the stored feature partitions in a scratch folder
    memo       what was computed before, kept between replays
    trainings  each partition's model, trained at most once, on all cores
    scores     each model on each partition, scored at most once
    evidence   drift and performance as the live system would have known them
    policies   the policies that are compared
    walk       one policy over the partitions: the real `decide`, the real gate
    oracle     the best that hindsight could have done
    staleness  loss by age of the model
    result     figures, paired intervals, recommendation
    run        all of it in order
    render     text, Markdown, picture
    page       one HTML page
    command    `retrain replay`

Belongs here: walking history. Does not: any rule of its own about drift, training, promotion or
retraining; those are the live system's functions. Nothing live is written: the ledger and the registry
are not opened, and the store is only read.
"""

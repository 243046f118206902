def respell(draft, samples):
    return

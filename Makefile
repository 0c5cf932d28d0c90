# The same verbs for people and CI; each makes the environment first if it has to.
PYTHON ?= python3
.DEFAULT_GOAL := help
VERBS := demo check format test test-slow bench docs setup help
.PHONY: $(VERBS)
$(VERBS):
	@$(PYTHON) bootstrap.py $@

# Short names for ./dev, which also works without make. Arguments: make test ARGS="-k wire"
.POSIX:
.PHONY: demo test lint check bench count measure drill picture servers schema lock dist image clean

demo test lint check bench count measure drill picture servers schema lock dist image clean:
	@./dev $@ $(ARGS)

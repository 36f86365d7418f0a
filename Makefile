# Short names for ./dev, which also works without make. Arguments: make test ARGS="-k wire"
.POSIX:
.PHONY: demo test lint check bench measure drill servers schema lock clean

demo test lint check bench measure drill servers schema lock clean:
	@./dev $@ $(ARGS)
